"""Thresholds for outputs with several labels per image, chosen on validation data."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def choose_thresholds(
    y_true: ArrayLike, probabilities: ArrayLike, metric: str = "f1"
) -> NDArray[np.float32]:
    """For each label the threshold t that does best when p >= t counts as "yes".

    Choose on validation data: the model knows the training data, and test data that have chosen
    something no longer tell how well it does.

    Args:
        y_true: (N, L) of 0 and 1; NaN where a label is missing, which then has no say.
        probabilities: (N, L), what the model's sigmoids gave.
        metric: "f1", 2 TP / (2 TP + FP + FN), or "accuracy", the share of right answers.

    Returns:
        float32 (L,): half way between the probabilities that it separates; of equally good ones the
        one nearest to 0.5. 0.5 for a label of which there is no example.

    Raises:
        ValueError: for shapes that differ, other values, or an unknown metric.
    """
    truth, p = np.asarray(y_true, np.float64), np.asarray(probabilities, np.float64)
    owner = "choose_thresholds"
    if truth.ndim != 2 or truth.shape != p.shape:
        raise ValueError(
            f"{owner}: expected y_true and probabilities of one shape (N, L), "
            f"got {truth.shape} and {p.shape}"
        )
    if not (np.isnan(truth) | (truth == 0) | (truth == 1)).all():
        raise ValueError(f"{owner}: y_true: expected 0, 1 or NaN")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"{owner}: probabilities: expected numbers in [0, 1]")
    if metric not in ("f1", "accuracy"):
        raise ValueError(f"{owner}: metric: expected 'f1' or 'accuracy', got {metric!r}")
    known = ~np.isnan(truth)
    columns = [_best(truth[k, i], p[k, i], metric) for i, k in enumerate(known.T)]
    return np.array(columns, np.float32)


def _best(truth: NDArray[Any], p: NDArray[Any], metric: str) -> float:
    positives = truth.sum()
    if positives == 0:
        return 0.5
    order = np.argsort(-p, kind="stable")
    truth, p = truth[order], p[order]
    # Cut k: the first k samples count as "yes". Equal probabilities cannot be told apart.
    cuts = np.flatnonzero(np.concatenate([[True], p[1:] < p[:-1], [True]]))
    right = np.concatenate([[0.0], np.cumsum(truth)])[cuts]
    if metric == "f1":
        scores = 2 * right / (cuts + positives)
    else:
        scores = right + (len(p) - positives) - (cuts - right)
    below = np.concatenate([p, [0.0]])[cuts]
    above = np.concatenate([[1.0], p])[cuts]
    middles = (above + below) / 2
    best = np.flatnonzero(scores == scores.max())
    return float(middles[best[np.abs(middles[best] - 0.5).argmin()]])
