"""How well a model does on labelled images, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 256
LONGEST_TABLE = 20


def predicted_classes(model: Any, x: NDArray[Any]) -> NDArray[np.int64]:
    """(N,) the class that the model gives each of its inputs."""
    return model.predict(x, batch_size=BATCH, verbose=0).argmax(axis=-1)


def accuracy_line(what: str, labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> str:
    """'held-out accuracy 99.17 % (357 of 360 images)'."""
    right = int((labels == predicted).sum())
    return f"{what} accuracy {100 * right / len(labels):.2f} % ({right} of {len(labels)} images)"


def details(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], class_names: Sequence[str]
) -> list[str]:
    """Lines with the accuracy of each class, the worst ones if there are many, and the commonest
    confusions."""
    counts = np.zeros((len(class_names), len(class_names)), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    totals, right = counts.sum(axis=1), counts.diagonal()
    shown = np.flatnonzero(totals)
    title = "class"
    if len(shown) > LONGEST_TABLE:
        worst = np.argsort(right[shown] / totals[shown], kind="stable")[:LONGEST_TABLE]
        shown, title = shown[worst], f"the worst {LONGEST_TABLE} classes"
    width = max(len(title), *(len(class_names[i]) for i in shown))
    lines = [f"  {title:{width}}  accuracy     images"]
    for i in shown:
        share = 100 * right[i] / totals[i]
        lines.append(f"  {class_names[i]:{width}}  {share:6.1f} %  {right[i]:4} of {totals[i]}")
    wrong = counts - np.diag(right)
    for actual, given in np.argwhere(wrong)[np.argsort(-wrong[wrong > 0], kind="stable")][:3]:
        times = wrong[actual, given]
        lines.append(
            f"  {class_names[actual]} was taken for {class_names[given]} {times} "
            f"{'time' if times == 1 else 'times'}"
        )
    return lines


def label_lines(
    what: str,
    targets: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    names: Sequence[str],
) -> list[str]:
    """Lines with precision, recall and F1 over all labels and of each one, and the share of images
    with every label right.

    targets: (N, L) of 0 and 1; NaN where it is not known, which counts nowhere. A label that no
    image has and none was given has no F1; the macro F1 is the mean over the others.
    """
    known = ~np.isnan(targets)
    truth, given = targets == 1, probabilities >= thresholds
    right = (truth & given).sum(axis=0)
    chosen, present = (given & known).sum(axis=0), truth.sum(axis=0)
    scores = [100 * _shares(right, chosen), 100 * _shares(right, present)]
    scores.append(100 * _shares(2 * right, chosen + present))
    measured = ~np.isnan(scores[2])
    micro = 100 * _shares(2 * right.sum(), (chosen + present).sum())
    macro = scores[2][measured].mean() if measured.any() else np.nan
    over = "" if measured.all() else f" (over {measured.sum()} of {len(names)} labels)"
    images = f"{len(targets)} images"
    lines = [f"{what} F1: macro {_percent(macro)}{over}, micro {_percent(micro)} ({images})"]
    complete = known.all(axis=1)
    if count := int(complete.sum()):
        whole = int((truth == given)[complete].all(axis=1).sum())
        lines.append(
            f"{what} images with every label right: {100 * whole / count:.2f} % ({whole} of {count}"
            f"{'' if complete.all() else ' whose labels are all known'})"
        )
    width = max(len("label"), *map(len, names))
    lines.append(f"  {'label':{width}}  precision   recall       F1  threshold  images")
    for i, name in enumerate(names):
        cells = "  ".join(f"{_percent(score[i]):>7}" for score in scores)
        lines.append(
            f"  {name:{width}}  {cells:>27}  {thresholds[i]:9.3f}  "
            f"{present[i]} of {known[:, i].sum()}"
        )
    return lines


def _shares(part: Any, whole: Any) -> Any:
    """part / whole, NaN for none of none."""
    return np.where(np.equal(whole, 0), np.nan, np.divide(part, np.maximum(whole, 1)))


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1f} %"
