"""Means over samples: accuracies and errors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.metrics.base import MeanMetric, labels_of, positive_integer, same_shape


class _NamedMean(MeanMetric):
    """A MeanMetric whose function is the method ``values``."""

    def __init__(self, name: str):
        super().__init__(self.values, name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError


class Accuracy(_NamedMean):
    """The share of y_pred that equals y_true."""

    def __init__(self, name: str = "accuracy"):
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        same_shape(self.name, y_true, y_pred)
        return y_true == y_pred


class BinaryAccuracy(_NamedMean):
    """The share of answers y_pred > threshold that equal y_true (0 or 1), both (N, ...). For logits
    the threshold is 0."""

    def __init__(self, name: str = "binary_accuracy", threshold: float = 0.5):
        if not -np.inf < threshold < np.inf:
            raise ValueError(f"{name}: threshold: expected a number, got {threshold!r}")
        self.threshold = float(threshold)
        self.native = "binary" if threshold == 0.5 else None
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        same_shape(self.name, y_true, y_pred)
        return (y_pred > self.threshold) == (y_true != 0)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "threshold": self.threshold}


class CategoricalAccuracy(_NamedMean):
    """The share of rows whose largest y_pred is where the largest y_true is, both (N,C)."""

    native = "categorical"

    def __init__(self, name: str = "categorical_accuracy"):
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        same_shape(self.name, y_true, y_pred)
        return y_true.argmax(axis=-1) == y_pred.argmax(axis=-1)


class SparseCategoricalAccuracy(_NamedMean):
    """The share of rows of y_pred (N,C) whose largest value is at the label y_true, (N,) or
    (N,1)."""

    native = "sparse"

    def __init__(self, name: str = "sparse_categorical_accuracy"):
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        return labels_of(self.name, y_true, y_pred) == y_pred.argmax(axis=-1)


class TopKCategoricalAccuracy(_NamedMean):
    """The share of rows whose largest y_true is among the k largest y_pred, both (N,C)."""

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy"):
        self.k = positive_integer(name, "k", k)
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        same_shape(self.name, y_true, y_pred)
        return _in_top_k(y_true.argmax(axis=-1), y_pred, self.k)

    def get_config(self) -> dict[str, Any]:
        return {"k": self.k, "name": self.name}


class SparseTopKCategoricalAccuracy(_NamedMean):
    """The share of rows whose label is among the k largest of y_pred (N,C)."""

    def __init__(self, k: int = 5, name: str = "sparse_top_k_categorical_accuracy"):
        self.k = positive_integer(name, "k", k)
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        return _in_top_k(labels_of(self.name, y_true, y_pred), y_pred, self.k)

    def get_config(self) -> dict[str, Any]:
        return {"k": self.k, "name": self.name}


class MeanSquaredError(_NamedMean):
    """The mean of (y_pred - y_true)^2."""

    def __init__(self, name: str = "mean_squared_error"):
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        same_shape(self.name, y_true, y_pred)
        return np.square(y_pred.astype(np.float64) - y_true)


class MeanAbsoluteError(_NamedMean):
    """The mean of |y_pred - y_true|."""

    def __init__(self, name: str = "mean_absolute_error"):
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        same_shape(self.name, y_true, y_pred)
        return np.abs(y_pred.astype(np.float64) - y_true)


def _in_top_k(labels: NDArray[Any], scores: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """Whether fewer than k scores of the row exceed the label's; never for a score that is not
    finite."""
    at = np.clip(labels, 0, scores.shape[1] - 1)
    own = scores[np.arange(len(labels)), at][:, None]
    inside = (labels >= 0) & (labels < scores.shape[1]) & np.isfinite(own[:, 0])
    return inside & ((scores > own).sum(axis=1) < k)
