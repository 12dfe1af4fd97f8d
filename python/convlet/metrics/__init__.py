"""Metrics, with Keras' names, arguments and numerics.

A model computes accuracies in its plan; the other metrics see its outputs as numpy arrays. Any
``Metric`` with update_state, result and reset_state can be given to compile.
"""

from typing import Any

from convlet.metrics.base import MeanMetric, Metric
from convlet.metrics.counts import AUC, F1Score, Precision, Recall
from convlet.metrics.means import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from convlet.metrics.report import classification_report, confusion_matrix
from convlet.metrics.thresholds import choose_thresholds

NAMES: dict[str, type[Metric]] = {
    "auc": AUC,
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "f1_score": F1Score,
    "mae": MeanAbsoluteError,
    "mean_absolute_error": MeanAbsoluteError,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "precision": Precision,
    "recall": Recall,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
    "top_k_categorical_accuracy": TopKCategoricalAccuracy,
}


def get(identifier: Any) -> Metric:
    """The metric for a name, a class name, a {"class", "config"} dict, a function (y_true, y_pred)
    -> (N,) or a Metric; ValueError otherwise."""
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()  # type: ignore[call-arg]
    name, config = identifier, {}
    if isinstance(identifier, dict):
        name, config = identifier.get("class"), identifier.get("config", {})
    if isinstance(name, str):
        if name in NAMES:
            return NAMES[name](**({"name": name} | config))
        for cls in (*NAMES.values(), Accuracy):
            if cls.__name__ == name:
                return cls(**config)
    if callable(identifier):
        return MeanMetric(identifier)
    raise ValueError(
        f"metrics: expected 'accuracy', one of {sorted(NAMES)}, a function or an object of "
        f"convlet.metrics, got {identifier!r}"
    )


def serialize(metric: Metric) -> dict[str, Any] | None:
    """{"class", "config"}, from which ``get`` makes it again; None for a metric of the user's
    own."""
    known = type(metric) in (*NAMES.values(), Accuracy)
    return {"class": type(metric).__name__, "config": metric.get_config()} if known else None


__all__ = [
    "AUC",
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "F1Score",
    "MeanAbsoluteError",
    "MeanMetric",
    "MeanSquaredError",
    "Metric",
    "Precision",
    "Recall",
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
    "choose_thresholds",
    "classification_report",
    "confusion_matrix",
    "get",
    "serialize",
]
