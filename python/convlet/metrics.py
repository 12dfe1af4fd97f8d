"""Metrics, with Keras' names, arguments and numerics.

A model computes accuracies in its plan; the other metrics see its outputs as numpy arrays. Any
``Metric`` with update_state, result and reset_state can be given to compile.
"""

from collections.abc import Callable, Sequence
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
            weights = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
            weights = np.broadcast_to(weights, values.shape)
            self.total += float((values * weights).sum())
            self.count += float(weights.sum())

    def result(self) -> float:
        return self.total / self.count if self.count else 0.0

    def reset_state(self) -> None:
        self.total = 0.0
        self.count = 0.0


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
        _same_shape(self.name, y_true, y_pred)
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
        _same_shape(self.name, y_true, y_pred)
        right = (y_pred > self.threshold) == (y_true != 0)
        return right.reshape(len(right), -1).mean(axis=1)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "threshold": self.threshold}


class CategoricalAccuracy(_NamedMean):
    """The share of rows whose largest y_pred is where the largest y_true is, both (N,C)."""

    native = "categorical"

    def __init__(self, name: str = "categorical_accuracy"):
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        _same_shape(self.name, y_true, y_pred)
        return y_true.argmax(axis=-1) == y_pred.argmax(axis=-1)


class SparseCategoricalAccuracy(_NamedMean):
    """The share of rows of y_pred (N,C) whose largest value is at the label y_true, (N,) or
    (N,1)."""

    native = "sparse"

    def __init__(self, name: str = "sparse_categorical_accuracy"):
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        return _labels(self.name, y_true, y_pred) == y_pred.argmax(axis=-1)


class TopKCategoricalAccuracy(_NamedMean):
    """The share of rows whose largest y_true is among the k largest y_pred, both (N,C)."""

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy"):
        self.k = _positive(name, "k", k)
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        _same_shape(self.name, y_true, y_pred)
        return _in_top_k(y_true.argmax(axis=-1), y_pred, self.k)

    def get_config(self) -> dict[str, Any]:
        return {"k": self.k, "name": self.name}


class SparseTopKCategoricalAccuracy(_NamedMean):
    """The share of rows whose label is among the k largest of y_pred (N,C)."""

    def __init__(self, k: int = 5, name: str = "sparse_top_k_categorical_accuracy"):
        self.k = _positive(name, "k", k)
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        return _in_top_k(_labels(self.name, y_true, y_pred), y_pred, self.k)

    def get_config(self) -> dict[str, Any]:
        return {"k": self.k, "name": self.name}


class MeanSquaredError(_NamedMean):
    """The mean of (y_pred - y_true)^2."""

    def __init__(self, name: str = "mean_squared_error"):
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        _same_shape(self.name, y_true, y_pred)
        return np.square(y_pred.astype(np.float64) - y_true)


class MeanAbsoluteError(_NamedMean):
    """The mean of |y_pred - y_true|."""

    def __init__(self, name: str = "mean_absolute_error"):
        super().__init__(name)

    def values(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        _same_shape(self.name, y_true, y_pred)
        return np.abs(y_pred.astype(np.float64) - y_true)


def _same_shape(owner: str, y_true: NDArray[Any], y_pred: NDArray[Any]) -> None:
    if y_true.shape != y_pred.shape:
        raise ValueError(f"{owner}: expected y_true of shape {y_pred.shape}, got {y_true.shape}")


def _labels(owner: str, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
    labels = y_true[:, 0] if y_true.ndim == 2 and y_true.shape[1] == 1 else y_true
    if labels.ndim != 1 or y_pred.ndim != 2 or len(labels) != len(y_pred):
        raise ValueError(
            f"{owner}: expected labels (N,) and predictions (N,C), "
            f"got {y_true.shape} and {y_pred.shape}"
        )
    return integer_labels(labels, owner)


def _positive(owner: str, argument: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{owner}: {argument}: expected a positive integer, got {value!r}")
    return int(value)


def _in_top_k(labels: NDArray[Any], scores: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """Whether fewer than k scores of the row exceed the label's; never for a score that is not
    finite."""
    at = np.clip(labels, 0, scores.shape[1] - 1)
    own = scores[np.arange(len(labels)), at][:, None]
    inside = (labels >= 0) & (labels < scores.shape[1]) & np.isfinite(own[:, 0])
    return inside & ((scores > own).sum(axis=1) < k)


def _answers(owner: str, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """y_true and y_pred of one shape; integer labels (N,) for scores (N,C), C > 1, become
    one-hot."""
    truth, scores = np.asarray(y_true), np.asarray(y_pred)
    if (
        scores.ndim == 2
        and scores.shape[1] > 1
        and truth.shape in ((len(scores),), (len(scores), 1))
    ):
        labels = _labels(owner, truth, scores)
        truth = labels[:, None] == np.arange(scores.shape[1])
    _same_shape(owner, truth, scores)
    return truth, scores


def _weights(sample_weight: ArrayLike | None, shape: tuple[int, ...]) -> F64:
    if sample_weight is None:
        return np.ones(shape)
    weights = np.asarray(sample_weight, np.float64)
    return np.broadcast_to(
        weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim)), shape
    )


class _PositiveCounts(Metric):
    """True and false positives and negatives of the answers y_pred > threshold."""

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str = "",
    ):
        values = [0.5] if thresholds is None else np.atleast_1d(thresholds).tolist()
        if not all(0 <= t <= 1 for t in values):
            raise ValueError(f"{name}: thresholds: expected numbers in [0, 1], got {thresholds!r}")
        self.thresholds = thresholds
        self.top_k = None if top_k is None else _positive(name, "top_k", top_k)
        self.class_id = class_id
        # With top_k, Keras takes every one of the k as positive unless thresholds are given.
        least = -np.inf if top_k is not None and thresholds is None else None
        self._limits = np.asarray([least] if least is not None else values, np.float64)
        super().__init__(name)

    def reset_state(self) -> None:
        zeros = np.zeros(len(self._limits))
        self.true_positives, self.false_positives = zeros.copy(), zeros.copy()
        self.false_negatives = zeros.copy()

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        truth, scores = _answers(self.name, y_true, y_pred)
        weights = _weights(sample_weight, scores.shape)
        candidate = np.ones(scores.shape, bool)
        if self.top_k is not None:
            order = np.argsort(-scores, axis=-1, kind="stable")[..., : self.top_k]
            candidate[...] = False
            np.put_along_axis(candidate, order, True, axis=-1)
        if self.class_id is not None:
            pick = (..., self.class_id)
            truth, scores, weights, candidate = (
                truth[pick],
                scores[pick],
                weights[pick],
                candidate[pick],
            )
        truth = truth != 0
        for i, limit in enumerate(self._limits):
            positive = candidate & (scores > limit)
            self.true_positives[i] += weights[positive & truth].sum()
            self.false_positives[i] += weights[positive & ~truth].sum()
            self.false_negatives[i] += weights[~positive & truth].sum()

    def _share(self, of: F64, rest: F64) -> Any:
        value = divide_no_nan(of, of + rest)
        return float(value[0]) if len(value) == 1 else value

    def get_config(self) -> dict[str, Any]:
        return {
            "thresholds": self.thresholds,
            "top_k": self.top_k,
            "class_id": self.class_id,
            "name": self.name,
        }


def divide_no_nan(a: Any, b: Any) -> F64:
    """a / b, and 0 where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


class Precision(_PositiveCounts):
    """True positives / predicted positives, of the answers y_pred > threshold (0.5). y_true is 0 or
    1, of the shape of y_pred, or integer labels (N,) for y_pred (N,C)."""

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str = "precision",
    ):
        super().__init__(thresholds, top_k, class_id, name)

    def result(self) -> Any:
        return self._share(self.true_positives, self.false_positives)


class Recall(_PositiveCounts):
    """True positives / actual positives, of the answers y_pred > threshold (0.5)."""

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str = "recall",
    ):
        super().__init__(thresholds, top_k, class_id, name)

    def result(self) -> Any:
        return self._share(self.true_positives, self.false_negatives)


class F1Score(Metric):
    """2 * precision * recall / (precision + recall) for each class of y_pred (N,C).

    Args:
        average: None (an array, one per class), "micro", "macro" (mean of classes) or "weighted"
            (by how often each class occurs).
        threshold: None: the largest of a row is the answer; else each y_pred > threshold.
    """

    def __init__(
        self, average: str | None = None, threshold: float | None = None, name: str = "f1_score"
    ):
        if average not in (None, "micro", "macro", "weighted"):
            raise ValueError(
                f"{name}: average: expected None, 'micro', 'macro' or 'weighted', got {average!r}"
            )
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(
                f"{name}: threshold: expected None or a number between 0 and 1, got {threshold!r}"
            )
        self.average, self.threshold = average, threshold
        super().__init__(name)

    def reset_state(self) -> None:
        self.true_positives: Any = 0.0
        self.false_positives: Any = 0.0
        self.false_negatives: Any = 0.0

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        truth, scores = _answers(self.name, y_true, y_pred)
        if scores.ndim != 2:
            raise ValueError(f"{self.name}: expected y_pred (N,C), got shape {scores.shape}")
        truth, weights = truth != 0, _weights(sample_weight, scores.shape)
        if self.threshold is None:
            positive = (scores >= scores.max(axis=-1, keepdims=True)) & (np.abs(scores) > 1e-9)
        else:
            positive = scores > self.threshold
        self.true_positives = self.true_positives + (weights * (positive & truth)).sum(axis=0)
        self.false_positives = self.false_positives + (weights * (positive & ~truth)).sum(axis=0)
        self.false_negatives = self.false_negatives + (weights * (~positive & truth)).sum(axis=0)

    def result(self) -> Any:
        tp, fp, fn = (
            np.asarray(c) for c in (self.true_positives, self.false_positives, self.false_negatives)
        )
        if self.average == "micro":
            tp, fp, fn = tp.sum(), fp.sum(), fn.sum()
        score = divide_no_nan(2 * tp, 2 * tp + fp + fn)
        if self.average == "macro":
            return float(score.mean())
        if self.average == "weighted":
            return float((score * divide_no_nan(tp + fn, (tp + fn).sum())).sum())
        return float(score) if score.ndim == 0 else score

    def get_config(self) -> dict[str, Any]:
        return {"average": self.average, "threshold": self.threshold, "name": self.name}


class AUC(Metric):
    """The area under a curve over ``num_thresholds`` thresholds, evenly spaced in [0, 1].

    Args:
        curve: "ROC" (true against false positive rate, trapezoids) or "PR" (precision against
            recall, interpolated as in Davis & Goadrich 2006).
    """

    def __init__(self, num_thresholds: int = 200, curve: str = "ROC", name: str = "auc"):
        if _positive(name, "num_thresholds", num_thresholds) < 2:
            raise ValueError(f"{name}: num_thresholds: expected at least 2, got {num_thresholds!r}")
        if curve not in ("ROC", "PR"):
            raise ValueError(f"{name}: curve: expected 'ROC' or 'PR', got {curve!r}")
        self.num_thresholds, self.curve = num_thresholds, curve
        inner = np.arange(1, num_thresholds - 1) / (num_thresholds - 1)
        self._limits = np.concatenate([[-1e-7], inner, [1 + 1e-7]])
        super().__init__(name)

    def reset_state(self) -> None:
        self.true_positives = np.zeros(self.num_thresholds)
        self.false_positives = np.zeros(self.num_thresholds)
        self.positives = self.negatives = 0.0

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        truth, scores = _answers(self.name, y_true, y_pred)
        if scores.size and not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"{self.name}: expected y_pred in [0, 1]")
        weights = _weights(sample_weight, scores.shape).ravel()
        truth, scores = truth.ravel() != 0, scores.ravel()
        for mask, counts in ((truth, self.true_positives), (~truth, self.false_positives)):
            order = np.argsort(scores[mask], kind="stable")
            above = np.concatenate([[0.0], np.cumsum(weights[mask][order])])
            counts += above[-1] - above[np.searchsorted(scores[mask][order], self._limits, "right")]
        self.positives += weights[truth].sum()
        self.negatives += weights[~truth].sum()

    def result(self) -> float:
        tp, fp = self.true_positives, self.false_positives
        if self.curve == "ROC":
            recall, fall_out = (
                divide_no_nan(tp, self.positives),
                divide_no_nan(fp, self.negatives),
            )
            return float(((fall_out[:-1] - fall_out[1:]) * (recall[:-1] + recall[1:])).sum() / 2)
        dtp, predicted = tp[:-1] - tp[1:], tp + fp
        slope = divide_no_nan(dtp, np.maximum(predicted[:-1] - predicted[1:], 0))
        intercept = tp[1:] - slope * predicted[1:]
        both = (predicted[:-1] > 0) & (predicted[1:] > 0)
        ratio = np.where(both, divide_no_nan(predicted[:-1], np.maximum(predicted[1:], 0)), 1.0)
        area = slope * (dtp + intercept * np.log(ratio))
        return float(divide_no_nan(area, self.positives).sum())

    def get_config(self) -> dict[str, Any]:
        return {"num_thresholds": self.num_thresholds, "curve": self.curve, "name": self.name}


def confusion_matrix(
    y_true: ArrayLike, y_pred: ArrayLike, num_classes: int | None = None
) -> NDArray[np.int64]:
    """counts[actual, predicted].

    Args:
        y_true, y_pred: integer labels (N,), or scores or one-hot labels (N,C), whose largest
        counts. num_classes: C; when None, the width of the scores or the largest label plus one.

    Returns:
        int64 (C, C): rows are actual, columns are predicted classes.
    """
    truth, answers = np.asarray(y_true), np.asarray(y_pred)
    widths = [a.shape[1] for a in (truth, answers) if a.ndim == 2 and a.shape[1] > 1]
    labels = [
        integer_labels(a.reshape(-1), f"confusion_matrix: {name}")
        if a.ndim == 1 or (a.ndim == 2 and a.shape[1] == 1)
        else a.argmax(axis=-1)
        for name, a in (("y_true", truth), ("y_pred", answers))
    ]
    actual, predicted = (a.astype(np.int64) for a in labels)
    if len(actual) != len(predicted):
        raise ValueError(
            "confusion_matrix: expected as many y_true as y_pred, "
            f"got {len(actual)} and {len(predicted)}"
        )
    largest = max((int(a.max()) + 1 for a in (actual, predicted) if a.size), default=0)
    classes = max([largest, *widths]) if num_classes is None else num_classes
    for name, a in (("y_true", actual), ("y_pred", predicted)):
        if a.size and (a.min() < 0 or a.max() >= classes):
            raise ValueError(
                f"confusion_matrix: {name}: expected labels in [0, {classes}), "
                f"got {a.min()} to {a.max()}"
            )
    return np.bincount(actual * classes + predicted, minlength=classes**2).reshape(classes, classes)


def classification_report(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    class_names: Sequence[str] | None = None,
    digits: int = 3,
    output_dict: bool = False,
) -> Any:
    """Precision, recall, F1 and support of each class, their means, and the accuracy.

    Args:
        y_true, y_pred: as confusion_matrix takes them.
        class_names: one per class; "0", "1", ... when None.

    Returns:
        A table as text, or with output_dict {name: {"precision", "recall", "f1-score", "support"},
        ..., "accuracy": float}.
    """
    matrix = confusion_matrix(y_true, y_pred, None if class_names is None else len(class_names))
    names = [str(i) for i in range(len(matrix))] if class_names is None else list(class_names)
    right, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    columns = {
        "precision": divide_no_nan(right, predicted),
        "recall": divide_no_nan(right, support),
        "f1-score": divide_no_nan(2 * right, support + predicted),
    }
    total = int(support.sum())
    report: dict[str, Any] = {
        name: {key: float(v[i]) for key, v in columns.items()} | {"support": int(support[i])}
        for i, name in enumerate(names)
    }
    report["accuracy"] = float(divide_no_nan(right.sum(), total))
    share = divide_no_nan(support, total)
    for title, weights in (
        ("macro avg", divide_no_nan(np.ones(len(names)), len(names))),
        ("weighted avg", share),
    ):
        report[title] = {key: float((v * weights).sum()) for key, v in columns.items()}
        report[title]["support"] = total
    return report if output_dict else _report_text(report, names, digits, total)


def _report_text(report: dict[str, Any], names: list[str], digits: int, total: int) -> str:
    width = max(len(name) for name in [*names, "weighted avg"])
    lines = [f"{'':{width}}  precision     recall   f1-score    support", ""]
    for name in [*names, "", "accuracy", "macro avg", "weighted avg"]:
        if name == "":
            lines.append("")
        elif name == "accuracy":
            lines.append(f"{name:{width}}  {'':9}  {'':9}  {report[name]:9.{digits}f}  {total:9d}")
        else:
            row = report[name]
            cells = "  ".join(f"{row[k]:9.{digits}f}" for k in ("precision", "recall", "f1-score"))
            lines.append(f"{name:{width}}  {cells}  {row['support']:9d}")
    return "\n".join(lines)


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
