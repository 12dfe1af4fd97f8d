"""Cross-entropies and the mean squared error."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import _core
from convlet.losses.base import F32, Loss, Shape, integer_labels, shape_text

_EPSILON = np.float32(1e-7)  # Keras' epsilon: probabilities are clipped to [epsilon, 1 - epsilon]


class SparseCategoricalCrossentropy(Loss):
    """-log p[label] for integer labels (N,) or (N,1) and predictions (N,C).

    Args:
        from_logits: the predictions are logits, not probabilities.
        ignore_class: a label, such as -1, whose rows count neither in the loss nor in the metrics.
        label_smoothing: e in [0, 1]: the label's probability is 1 - e + e / C, the others' e / C.

    Raises:
        ValueError: for a label outside [0, C) that is not ignore_class, with its position.
    """

    kind = "softmax_cross_entropy"
    integer_labels = True

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "sparse_categorical_crossentropy",
        *,
        label_smoothing: float = 0.0,
    ):
        super().__init__(name, from_logits, label_smoothing, reduction)
        if ignore_class is not None and not isinstance(ignore_class, (int, np.integer)):
            raise ValueError(
                f"{name}: ignore_class: expected an integer or None, got {ignore_class!r}"
            )
        self.ignore_class = None if ignore_class is None else int(ignore_class)

    def targets(self, y: NDArray[Any], sample: Shape, owner: str) -> NDArray[Any]:
        if len(sample) != 1:
            raise ValueError(
                f"{owner}: {self.name} expects an output (N,C), got {shape_text(sample)}"
            )
        if not (y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)):
            hint = (
                "; for one-hot labels use 'categorical_crossentropy'"
                if y.ndim == 2 and y.shape[1:] == sample
                else ""
            )
            raise ValueError(
                f"{owner}: expected integer labels (N,) or (N,1) for {self.name}, "
                f"got shape {y.shape}{hint}"
            )
        labels = integer_labels(y.reshape(-1), owner)
        wrong = (labels < 0) | (labels >= sample[0])
        if self.ignore_class is not None:
            wrong &= labels != self.ignore_class
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(
                f"{owner}: expected labels in [0, {sample[0]}), got {labels[at]} at position {at}"
            )
        return labels

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        logits = predictions if self.from_logits else _log_probabilities(predictions)
        return _core.softmax_cross_entropy(
            logits, targets, None, self.label_smoothing, None, "none", False, *self.focal
        )

    def mask(self, targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        if self.ignore_class is None:
            return targets, None
        kept = targets != self.ignore_class
        return np.where(kept, targets, 0).astype(np.int64), kept

    def get_config(self) -> dict[str, Any]:
        return {
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
            "label_smoothing": self.label_smoothing,
            "name": self.name,
        }


class CategoricalCrossentropy(Loss):
    """-sum_c t[c] log p[c] for probabilities (one-hot labels) t (N,C) and predictions (N,C).

    Args:
        from_logits: the predictions are logits, not probabilities.
        label_smoothing: e in [0, 1]: t becomes (1 - e) t + e / C.
        mask_missing: targets that are NaN do not count; see Loss.
    """

    kind = "softmax_cross_entropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        *,
        mask_missing: bool = False,
    ):
        super().__init__(name, from_logits, label_smoothing, reduction, mask_missing)
        if axis != -1:
            raise ValueError(f"{name}: axis: expected -1, got {axis!r}")

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        logits = predictions if self.from_logits else _log_probabilities(predictions)
        return _core.softmax_cross_entropy(
            logits, targets, None, self.label_smoothing, None, "none", False, *self.focal
        )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
        }


class BinaryCrossentropy(Loss):
    """The mean over the last axes of -t log p - (1 - t) log(1 - p): one or several yes-or-no
    answers.

    Args:
        from_logits: the predictions are logits, not probabilities.
        label_smoothing: e in [0, 1]: t becomes (1 - e) t + e / 2.
        mask_missing: targets that are NaN do not count; see Loss.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        *,
        mask_missing: bool = False,
    ):
        super().__init__(name, from_logits, label_smoothing, reduction, mask_missing)
        if axis != -1:
            raise ValueError(f"{name}: axis: expected -1, got {axis!r}")

    @property
    def kind(self) -> str:  # type: ignore[override]
        return "sigmoid_cross_entropy" if self.from_logits else "binary_cross_entropy"

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        return _elementwise_rows(self, targets, predictions)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
        }


class MeanSquaredError(Loss):
    """The mean over the last axes of (y_pred - y_true)^2.

    Args:
        mask_missing: targets that are NaN do not count; see Loss.
    """

    kind = "mean_squared_error"

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "mean_squared_error",
        *,
        mask_missing: bool = False,
    ):
        super().__init__(name, reduction=reduction, mask_missing=mask_missing)

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        return _elementwise_rows(self, targets, predictions)


def _log_probabilities(p: F32) -> F32:
    p = p / p.sum(axis=-1, keepdims=True)
    return np.log(np.clip(p, _EPSILON, 1 - _EPSILON))


def _elementwise_rows(loss: Loss, targets: NDArray[Any], predictions: F32) -> F32:
    known = ~np.isnan(targets) if loss.mask_missing else np.ones(targets.shape, np.bool_)
    values = _core.elementwise_loss(
        loss.kind,
        predictions,
        np.where(known, targets, np.float32(0)),
        loss.label_smoothing,
        "none",
        False,
        *loss.focal,
    )
    axes = tuple(range(1, values.ndim))
    count = np.maximum(1, np.count_nonzero(known, axis=axes)).astype(np.float32)
    return np.where(known, values, np.float32(0)).sum(axis=axes) / count
