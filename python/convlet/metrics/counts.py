"""Metrics from counts of true and false positives and negatives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from convlet.metrics.base import (
    F64,
    Metric,
    answers_of,
    divide_no_nan,
    positive_integer,
    weights_of,
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
        self.top_k = None if top_k is None else positive_integer(name, "top_k", top_k)
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
        truth, scores = answers_of(self.name, y_true, y_pred)
        weights = weights_of(sample_weight, scores.shape)
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
        truth, scores = answers_of(self.name, y_true, y_pred)
        if scores.ndim != 2:
            raise ValueError(f"{self.name}: expected y_pred (N,C), got shape {scores.shape}")
        truth, weights = truth != 0, weights_of(sample_weight, scores.shape)
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
        if positive_integer(name, "num_thresholds", num_thresholds) < 2:
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
        truth, scores = answers_of(self.name, y_true, y_pred)
        if scores.size and not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"{self.name}: expected y_pred in [0, 1]")
        weights = weights_of(sample_weight, scores.shape).ravel()
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
