"""Metric, and the checks that metrics share."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlet.losses import integer_labels

F64 = NDArray[np.float64]


class Metric:
    """Base of metrics: a running value over batches."""

    # The name of the accuracy that a plan can compute instead of update_state, or None.
    native: str | None = None

    def __init__(self, name: str):
        self.name = name
        self.reset_state()

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Takes a batch in: y_pred is what the model gave, (N, ...)."""
        raise NotImplementedError(f"{type(self).__name__} must define update_state")

    def result(self) -> Any:
        """The value over the batches since reset_state."""
        raise NotImplementedError(f"{type(self).__name__} must define result")

    def reset_state(self) -> None:
        """Forgets all batches."""
        raise NotImplementedError(f"{type(self).__name__} must define reset_state")

    def __call__(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Any:
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


class MeanMetric(Metric):
    """The (weighted) mean over samples of a function (y_true, y_pred) -> (N, ...)."""

    def __init__(self, function: Callable[..., ArrayLike], name: str | None = None):
        self.function = function
        super().__init__(getattr(function, "__name__", "metric") if name is None else name)

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        values = np.asarray(self.function(np.asarray(y_true), np.asarray(y_pred)), np.float64)
        if values.ndim == 0:
            values = np.full(len(np.asarray(y_pred)), values)
        if sample_weight is None:
            self.total += float(values.sum())
            self.count += values.size
        else:
            weights = np.asarray(sample_weight, np.float64)
            # Weights of the elements of a sample, for a function of whole samples: the largest.
            weights = weights.max(axis=tuple(range(values.ndim, weights.ndim)))
            weights = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
            weights = np.broadcast_to(weights, values.shape)
            self.total += float((values * weights).sum())
            self.count += float(weights.sum())

    def result(self) -> float:
        return self.total / self.count if self.count else 0.0

    def reset_state(self) -> None:
        self.total = 0.0
        self.count = 0.0


def same_shape(owner: str, y_true: NDArray[Any], y_pred: NDArray[Any]) -> None:
    if y_true.shape != y_pred.shape:
        raise ValueError(f"{owner}: expected y_true of shape {y_pred.shape}, got {y_true.shape}")


def labels_of(owner: str, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
    labels = y_true[:, 0] if y_true.ndim == 2 and y_true.shape[1] == 1 else y_true
    if labels.ndim != 1 or y_pred.ndim != 2 or len(labels) != len(y_pred):
        raise ValueError(
            f"{owner}: expected labels (N,) and predictions (N,C), "
            f"got {y_true.shape} and {y_pred.shape}"
        )
    return integer_labels(labels, owner)


def positive_integer(owner: str, argument: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{owner}: {argument}: expected a positive integer, got {value!r}")
    return int(value)


def answers_of(
    owner: str, y_true: ArrayLike, y_pred: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    """y_true and y_pred of one shape; integer labels (N,) for scores (N,C), C > 1, become
    one-hot."""
    truth, scores = np.asarray(y_true), np.asarray(y_pred)
    if (
        scores.ndim == 2
        and scores.shape[1] > 1
        and truth.shape in ((len(scores),), (len(scores), 1))
    ):
        labels = labels_of(owner, truth, scores)
        truth = labels[:, None] == np.arange(scores.shape[1])
    same_shape(owner, truth, scores)
    return truth, scores


def weights_of(sample_weight: ArrayLike | None, shape: tuple[int, ...]) -> F64:
    if sample_weight is None:
        return np.ones(shape)
    weights = np.asarray(sample_weight, np.float64)
    return np.broadcast_to(
        weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim)), shape
    )


def divide_no_nan(a: Any, b: Any) -> F64:
    """a / b, and 0 where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)
