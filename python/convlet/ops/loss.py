"""Losses: value and gradient in one pass."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from convlet import _core
from convlet._arguments import flag, integer, number, text
from convlet._interop import Array, borrow

Reduction = Literal["mean", "sum", "none"]


def _give_loss(give: Any, return_grad: bool, result: Any) -> Any:
    loss, gradient = result if return_grad else (result, None)
    # numpy users expect a scalar where torch users expect a tensor without axes.
    loss = give(loss)
    if isinstance(loss, np.ndarray) and loss.ndim == 0:
        loss = loss[()]
    return (loss, give(gradient)) if return_grad else loss


def softmax_cross_entropy(
    logits: Array,
    labels: Array,
    *,
    class_weight: Array | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    return_grad: bool = False,
    focal_gamma: float = 0.0,
) -> Any:
    """Cross-entropy of softmax(logits) against class indices or probabilities, and its gradient.

    With p = softmax(logits[n]), class weights w (1 when None) and label smoothing e:
        class indices   l[n] = -(1-e) * w[t] * log p[t] - e/C * sum_c w[c] * log p[c],  t =
        labels[n] probabilities   l[n] = -sum_c w[c] * ((1-e) * labels[n,c] + e/C) * log p[c]
    These are torch's definitions, those of the mean included.

    Args:
        logits: (N,C), C >= 1.
        labels: class indices (N,) of dtype int32, int64 or uint8, or probabilities (N,C) of
            float32.
        class_weight: (C,), or None.
        label_smoothing: e in [0, 1].
        ignore_index: rows with this class index have loss and gradient 0; None ignores none.
        reduction: "mean" divides the sum by the summed weights w[t] of the rows that are not
            ignored (by N for probabilities) and is NaN when there are none; "sum"; "none".
        return_grad: whether to return the gradient too; one pass makes both.
        focal_gamma: g >= 0: with g > 0 each log p[c] is multiplied by (1 - p[c])^g (Lin et al.
            2017).

    Returns:
        loss, or (loss, dlogits). loss is a scalar, or (N,) for "none"; dlogits (N,C) is the
        gradient of the scalar, for "none" of the sum.

    Raises:
        ValueError: also for a class index outside [0, C) that is not ignore_index, with its
            position.
    """
    op = "softmax_cross_entropy"
    logits, labels, weights, _, give = borrow(
        op, None, logits=logits, labels=labels, class_weight=class_weight
    )
    result = _core.softmax_cross_entropy(
        logits,
        labels,
        weights,
        number(op, "label_smoothing", label_smoothing),
        None if ignore_index is None else integer(op, "ignore_index", ignore_index),
        text(op, "reduction", reduction),
        flag(op, "return_grad", return_grad),
        number(op, "focal_gamma", focal_gamma),
    )
    return _give_loss(give, return_grad, result)


def sigmoid_cross_entropy(
    logits: Array,
    targets: Array,
    *,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    return_grad: bool = False,
    focal_gamma: float = 0.0,
    focal_alpha: float | None = None,
) -> Any:
    """Cross-entropy of sigmoid(logits) against targets in [0, 1], each element for itself.

    l = max(z, 0) - z * t + log(1 + exp(-|z|)), with z = logits, t = (1-e) * targets + e/2.

    Args:
        logits, targets: of one shape; (N,) against (N,1) is an error.
        label_smoothing: e in [0, 1].
        reduction: "mean" over all elements (NaN when there are none), "sum" or "none".
        return_grad: whether to return the gradient too.
        focal_gamma: g >= 0: with g > 0, l is multiplied by (1 - q)^g, q = t p + (1-t) (1-p) the
            probability of the right answer (Lin et al. 2017).
        focal_alpha: a in [0, 1]: l is multiplied by a t + (1-a) (1-t); None for not at all.

    Returns:
        loss, or (loss, dlogits). loss is a scalar, or has the logits' shape for "none"; dlogits is
        the gradient of the scalar, for "none" of the sum.
    """
    op = "sigmoid_cross_entropy"
    logits, targets, _, give = borrow(op, None, logits=logits, targets=targets)
    result = _core.elementwise_loss(
        op,
        logits,
        targets,
        number(op, "label_smoothing", label_smoothing),
        text(op, "reduction", reduction),
        flag(op, "return_grad", return_grad),
        number(op, "focal_gamma", focal_gamma),
        None if focal_alpha is None else number(op, "focal_alpha", focal_alpha),
    )
    return _give_loss(give, return_grad, result)


def mean_squared_error(
    pred: Array, target: Array, *, reduction: Reduction = "mean", return_grad: bool = False
) -> Any:
    """The squared difference l = (pred - target)^2.

    Args:
        pred, target: of one shape; (N,) against (N,1) is an error.
        reduction: "mean" over all elements (NaN when there are none), "sum" or "none".
        return_grad: whether to return the gradient too.

    Returns:
        loss, or (loss, dpred). loss is a scalar, or has pred's shape for "none"; dpred is the
        gradient of the scalar, for "none" of the sum.
    """
    op = "mean_squared_error"
    pred, target, _, give = borrow(op, None, pred=pred, target=target)
    result = _core.elementwise_loss(
        op,
        pred,
        target,
        0.0,
        text(op, "reduction", reduction),
        flag(op, "return_grad", return_grad),
    )
    return _give_loss(give, return_grad, result)
