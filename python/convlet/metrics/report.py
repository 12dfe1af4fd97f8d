"""The confusion matrix and the report made from it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlet.losses import integer_labels
from convlet.metrics.base import divide_no_nan


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
