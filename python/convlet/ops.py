"""Functional operations on arrays: what the layers of a model compute, one call at a time.

Arrays are numpy, torch or of any library with DLPack, in the CPU's memory. Their memory is used as
it is; only an array that is not C-contiguous is copied. The result is an array of the library of
the first argument. All arithmetic is float32, and so is every array except labels.

Letters mean the same everywhere: images are (N,H,W,C), weights (R,S,C,K), outputs (N,P,Q,K); `dy`
is the gradient of some scalar with respect to y, and an op's backward turns it into dx, dw, db. An
empty batch (N = 0) is allowed. `out`, where an op takes it, is a C-contiguous float32 array of the
result's shape, which is written and returned; it may not share memory with an input unless the op
says so.

Each op raises TypeError for an argument of a wrong type or dtype and ValueError for a wrong rank,
shape or value, before it computes anything; the message names the op, the argument, what it
expected and what it got. Results are the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from convlet import _core
from convlet._arguments import activation as _activation
from convlet._arguments import counter, flag, integer, integers, number, pair, text
from convlet._arguments import padding as _padding
from convlet._interop import borrow

Array = Any  # numpy.ndarray, torch.Tensor, or any other array with DLPack
Size2 = int | tuple[int, int]
Padding = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] | Literal["valid", "same"]
Reduction = Literal["mean", "sum", "none"]

__all__ = [
    "add",
    "avg_pool2d",
    "avg_pool2d_backward",
    "conv2d",
    "conv2d_backward_bias",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "dense",
    "dense_backward",
    "dropout",
    "gelu",
    "gelu_backward",
    "log_softmax",
    "log_softmax_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "mean_squared_error",
    "multiply",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_cross_entropy",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "tanh",
    "tanh_backward",
]

# ------------------------------------------------------------------ convolution and dense


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Size2 = 1,
    padding: Padding = 0,
    dilation: Size2 = 1,
    groups: int = 1,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """2-D convolution (cross-correlation, as in torch and Keras), with bias and activation fused.

    y[n,p,q,k] = act(bias[k] + sum_{r,s,c} x[n, p*stride + r*dilation - top,
                                             q*stride + s*dilation - left, g*C/groups + c]
                                           * weight[r,s,c,k]),   g = k // (K/groups)

    Args:
        x: images (N,H,W,C); reads outside them count as zero.
        weight: (R,S,C/groups,K), Keras' order.
        bias: (K,), or None.
        stride: pixels from one window to the next, >= 1; an integer or (h, w).
        padding: rows and columns of zeros: an integer, (h, w), ((top, bottom), (left, right)),
            "valid" (none) or "same" (Keras': P = ceil(H/stride), the odd row below, the odd column
            right).
        dilation: pixels from one tap of the window to the next, >= 1; an integer or (h, w).
        groups: divides C and K; channels of one group see each other alone. groups = C is
            depthwise.
        activation: None, "relu", "sigmoid", "tanh", "gelu" or "silu".
        out: where to write y.

    Returns:
        y (N,P,Q,K), P = (H + top + bottom - dilation*(R-1) - 1) // stride + 1, Q likewise.
    """
    op = "conv2d"
    x, weight, bias, y, give = borrow(op, out, x=x, weight=weight, bias=bias)
    return give(
        _core.conv2d(
            x,
            weight,
            bias,
            pair(op, "stride", stride),
            _padding(op, padding),
            pair(op, "dilation", dilation),
            integer(op, "groups", groups),
            _activation(op, activation),
            y,
        )
    )


def conv2d_backward_input(
    dy: Array,
    weight: Array,
    input_shape: Sequence[int],
    *,
    stride: Size2 = 1,
    padding: Padding = 0,
    dilation: Size2 = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """The gradient of conv2d (without activation) with respect to x.

    Args:
        dy: (N,P,Q,K).
        weight: (R,S,C/groups,K).
        input_shape: (N,H,W,C), the shape of x.
        stride, padding, dilation, groups: as conv2d was given them.
        out: where to write dx.

    Returns:
        dx (N,H,W,C).
    """
    op = "conv2d_backward_input"
    dy, weight, dx, give = borrow(op, out, dy=dy, weight=weight)
    return give(
        _core.conv2d_backward_input(
            dy,
            weight,
            integers(op, "input_shape", input_shape),
            pair(op, "stride", stride),
            _padding(op, padding),
            pair(op, "dilation", dilation),
            integer(op, "groups", groups),
            dx,
        )
    )


def conv2d_backward_weight(
    dy: Array,
    x: Array,
    kernel_size: Size2,
    *,
    stride: Size2 = 1,
    padding: Padding = 0,
    dilation: Size2 = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """The gradient of conv2d (without activation) with respect to its weight.

    Args:
        dy: (N,P,Q,K).
        x: (N,H,W,C).
        kernel_size: (R, S), or an integer for both.
        stride, padding, dilation, groups: as conv2d was given them.
        out: where to write dw.

    Returns:
        dw (R,S,C/groups,K), summed over the batch.
    """
    op = "conv2d_backward_weight"
    dy, x, dw, give = borrow(op, out, dy=dy, x=x)
    return give(
        _core.conv2d_backward_weight(
            dy,
            x,
            pair(op, "kernel_size", kernel_size),
            pair(op, "stride", stride),
            _padding(op, padding),
            pair(op, "dilation", dilation),
            integer(op, "groups", groups),
            dw,
        )
    )


def conv2d_backward_bias(dy: Array, *, out: Array | None = None) -> Array:
    """The gradient of conv2d with respect to its bias: db[k] = sum_{n,p,q} dy[n,p,q,k].

    Args:
        dy: (N,P,Q,K).
        out: where to write db.

    Returns:
        db (K,).
    """
    op = "conv2d_backward_bias"
    dy, db, give = borrow(op, out, dy=dy)
    return give(_core.conv2d_backward_bias(dy, db))


def dense(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """A fully connected layer: y[n,o] = act(bias[o] + sum_i x[n,i] * weight[i,o]).

    Args:
        x: (N,I).
        weight: (I,O), Keras' order.
        bias: (O,), or None.
        activation: None, "relu", "sigmoid", "tanh", "gelu" or "silu".
        out: where to write y.

    Returns:
        y (N,O).
    """
    op = "dense"
    x, weight, bias, y, give = borrow(op, out, x=x, weight=weight, bias=bias)
    return give(_core.dense(x, weight, bias, _activation(op, activation), y))


def dense_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """The gradients of dense (without activation).

    Args:
        dy: (N,O).
        x: (N,I).
        weight: (I,O).

    Returns:
        (dx, dw, db): dx = dy @ weight.T (N,I); dw = x.T @ dy (I,O); db = sum_n dy[n] (O,).
    """
    op = "dense_backward"
    dy, x, weight, _, give = borrow(op, None, dy=dy, x=x, weight=weight)
    dx, dw, db = _core.dense_backward(dy, x, weight)
    return give(dx), give(dw), give(db)


# ------------------------------------------------------------------ pooling


def max_pool2d(
    x: Array,
    pool_size: Size2 = 2,
    *,
    stride: Size2 | None = None,
    padding: Padding = 0,
    dilation: Size2 = 1,
    ceil_mode: bool = False,
    out: Array | None = None,
) -> Array:
    """The largest value of each window.

    y[n,p,q,c] = max_{r,s} x[n, p*stride + r*dilation - top, q*stride + s*dilation - left, c].

    NaN is larger than anything. Padding never wins.

    Args:
        x: images (N,H,W,C).
        pool_size: (R, S), or an integer for both.
        stride: an integer or (h, w); None is pool_size.
        padding: as conv2d's, at most half the window.
        dilation: pixels from one tap of the window to the next.
        ceil_mode: whether a last window may reach beyond the padded image; it must begin inside.
        out: where to write y.

    Returns:
        y (N,P,Q,C), P = (H + top + bottom - dilation*(R-1) - 1) / stride + 1, the quotient rounded
        down, or up with ceil_mode; Q likewise.
    """
    op = "max_pool2d"
    x, y, give = borrow(op, out, x=x)
    window = pair(op, "pool_size", pool_size)
    return give(
        _core.max_pool2d(
            x,
            window,
            window if stride is None else pair(op, "stride", stride),
            _padding(op, padding),
            pair(op, "dilation", dilation),
            flag(op, "ceil_mode", ceil_mode),
            y,
        )
    )


def max_pool2d_backward(
    dy: Array,
    x: Array,
    pool_size: Size2 = 2,
    *,
    stride: Size2 | None = None,
    padding: Padding = 0,
    dilation: Size2 = 1,
    ceil_mode: bool = False,
    out: Array | None = None,
) -> Array:
    """The gradient of max_pool2d: dy goes to the largest value of its window.

    Of equal values the first in row-major order takes it, and the first NaN before any number.

    Args:
        dy: (N,P,Q,C).
        x: (N,H,W,C), the images that were pooled.
        pool_size, stride, padding, dilation, ceil_mode: as max_pool2d was given them.
        out: where to write dx.

    Returns:
        dx (N,H,W,C).
    """
    op = "max_pool2d_backward"
    dy, x, dx, give = borrow(op, out, dy=dy, x=x)
    window = pair(op, "pool_size", pool_size)
    return give(
        _core.max_pool2d_backward(
            dy,
            x,
            window,
            window if stride is None else pair(op, "stride", stride),
            _padding(op, padding),
            pair(op, "dilation", dilation),
            flag(op, "ceil_mode", ceil_mode),
            dx,
        )
    )


def avg_pool2d(
    x: Array,
    pool_size: Size2 = 2,
    *,
    stride: Size2 | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    out: Array | None = None,
) -> Array:
    """The mean of each window.

    Args:
        x: images (N,H,W,C).
        pool_size: (R, S), or an integer for both.
        stride: an integer or (h, w); None is pool_size.
        padding: as conv2d's, at most half the window.
        ceil_mode: whether a last window may reach beyond the padded image; it must begin inside.
        count_include_pad: divide by the window's cells inside the padded image; by default (unlike
            torch's) by those inside x alone.
        out: where to write y.

    Returns:
        y (N,P,Q,C); P and Q as for max_pool2d.
    """
    op = "avg_pool2d"
    x, y, give = borrow(op, out, x=x)
    window = pair(op, "pool_size", pool_size)
    return give(
        _core.avg_pool2d(
            x,
            window,
            window if stride is None else pair(op, "stride", stride),
            _padding(op, padding),
            flag(op, "ceil_mode", ceil_mode),
            flag(op, "count_include_pad", count_include_pad),
            y,
        )
    )


def avg_pool2d_backward(
    dy: Array,
    input_shape: Sequence[int],
    pool_size: Size2 = 2,
    *,
    stride: Size2 | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    out: Array | None = None,
) -> Array:
    """The gradient of avg_pool2d: dy is shared equally among the cells that its mean was taken of.

    Args:
        dy: (N,P,Q,C).
        input_shape: (N,H,W,C), the shape of x.
        pool_size, stride, padding, ceil_mode, count_include_pad: as avg_pool2d was given them.
        out: where to write dx.

    Returns:
        dx (N,H,W,C).
    """
    op = "avg_pool2d_backward"
    dy, dx, give = borrow(op, out, dy=dy)
    window = pair(op, "pool_size", pool_size)
    return give(
        _core.avg_pool2d_backward(
            dy,
            integers(op, "input_shape", input_shape),
            window,
            window if stride is None else pair(op, "stride", stride),
            _padding(op, padding),
            flag(op, "ceil_mode", ceil_mode),
            flag(op, "count_include_pad", count_include_pad),
            dx,
        )
    )


# ------------------------------------------------------------------ activations


def _activate(name: str, x: Array, out: Array | None) -> Array:
    x, y, give = borrow(name, out, x=x)
    return give(_core.activation(name, x, y))


def _activate_backward(
    name: str, dy: Array, second: str, y_or_x: Array, out: Array | None
) -> Array:
    dy, y_or_x, dx, give = borrow(f"{name}_backward", out, dy=dy, **{second: y_or_x})
    return give(_core.activation_backward(name, dy, y_or_x, dx))


def relu(x: Array, *, out: Array | None = None) -> Array:
    """y = max(x, 0); NaN stays NaN. x and y have any shape; out may be x."""
    return _activate("relu", x, out)


def relu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = dy where y > 0, else 0, with y = relu(x). All of one shape; out may be dy."""
    return _activate_backward("relu", dy, "y", y, out)


def sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """y = 1 / (1 + exp(-x)). x and y have any shape; out may be x."""
    return _activate("sigmoid", x, out)


def sigmoid_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = dy * y * (1 - y), with y = sigmoid(x). All of one shape; out may be dy."""
    return _activate_backward("sigmoid", dy, "y", y, out)


def tanh(x: Array, *, out: Array | None = None) -> Array:
    """y = tanh(x). x and y have any shape; out may be x."""
    return _activate("tanh", x, out)


def tanh_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = dy * (1 - y^2), with y = tanh(x). All of one shape; out may be dy."""
    return _activate_backward("tanh", dy, "y", y, out)


def gelu(x: Array, *, out: Array | None = None) -> Array:
    """y = x * (1 + erf(x / sqrt(2))) / 2, the exact form (Hendrycks & Gimpel 2016).

    x and y have any shape; out may be x.
    """
    return _activate("gelu", x, out)


def gelu_backward(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dx = dy * (Phi(x) + x * phi(x)), Phi and phi the normal distribution and its density.

    Takes x, not y, as y does not determine it. All of one shape; out may be dy.
    """
    return _activate_backward("gelu", dy, "x", x, out)


def silu(x: Array, *, out: Array | None = None) -> Array:
    """y = x * sigmoid(x), also called swish. x and y have any shape; out may be x."""
    return _activate("silu", x, out)


def silu_backward(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dx = dy * s * (1 + x * (1 - s)), s = sigmoid(x).

    Takes x, not y, as y does not determine it. All of one shape; out may be dy.
    """
    return _activate_backward("silu", dy, "x", x, out)


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """y = exp(x - m) / sum(exp(x - m)), m = max(x), over the last axis.

    x has any rank >= 1 with at least one value along the last axis; y has its shape; out may be x.
    """
    x, y, give = borrow("softmax", out, x=x)
    return give(_core.softmax(x, y))


def softmax_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = y * (dy - sum(dy * y)) over the last axis, with y = softmax(x). out may be dy."""
    dy, y, dx, give = borrow("softmax_backward", out, dy=dy, y=y)
    return give(_core.softmax_backward(dy, y, dx))


def log_softmax(x: Array, *, out: Array | None = None) -> Array:
    """y = x - m - log(sum(exp(x - m))), m = max(x), over the last axis.

    x has any rank >= 1 with at least one value along the last axis; y has its shape; out may be x.
    """
    x, y, give = borrow("log_softmax", out, x=x)
    return give(_core.log_softmax(x, y))


def log_softmax_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = dy - exp(y) * sum(dy) over the last axis, with y = log_softmax(x). out may be dy."""
    dy, y, dx, give = borrow("log_softmax_backward", out, dy=dy, y=y)
    return give(_core.log_softmax_backward(dy, y, dx))


# ------------------------------------------------------------------ losses


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
    )
    return _give_loss(give, return_grad, result)


def sigmoid_cross_entropy(
    logits: Array,
    targets: Array,
    *,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    return_grad: bool = False,
) -> Any:
    """Cross-entropy of sigmoid(logits) against targets in [0, 1], each element for itself.

    l = max(z, 0) - z * t + log(1 + exp(-|z|)), with z = logits, t = (1-e) * targets + e/2.

    Args:
        logits, targets: of one shape; (N,) against (N,1) is an error.
        label_smoothing: e in [0, 1].
        reduction: "mean" over all elements (NaN when there are none), "sum" or "none".
        return_grad: whether to return the gradient too.

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


# ------------------------------------------------------------------ dropout and arithmetic


def dropout(
    x: Array, rate: float = 0.5, *, seed: int, step: int = 0, out: Array | None = None
) -> Array:
    """Sets each element to 0 with probability `rate` and divides the others by 1 - rate.

    Which elements are kept depends on (seed, step) and their position alone, so the gradient is the
    same call on dy. The random numbers are Philox4x32-10 (Salmon et al. 2011).

    Args:
        x: of any shape.
        rate: in [0, 1).
        seed: an integer in [0, 2^64).
        step: an integer in [0, 2^24); each gives other elements.
        out: where to write y; it may be x.

    Returns:
        y, of x's shape.
    """
    op = "dropout"
    x, y, give = borrow(op, out, x=x)
    return give(
        _core.dropout(
            x,
            number(op, "rate", rate),
            counter(op, "seed", seed, 64),
            counter(op, "step", step, 24),
            0,
            y,
        )
    )


def add(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = a + b, all of one shape (nothing is broadcast); out may be a or b."""
    a, b, y, give = borrow("add", out, a=a, b=b)
    return give(_core.add(a, b, y))


def multiply(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = a * b, all of one shape (nothing is broadcast); out may be a or b."""
    a, b, y, give = borrow("multiply", out, a=a, b=b)
    return give(_core.multiply(a, b, y))
