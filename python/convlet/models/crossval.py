"""Cross-validation: how good a model is, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convlet.models.data import class_labels
from convlet.progress import format_value

OWNER = "crossval"


@dataclass(frozen=True)
class CrossValidation:
    """The result of crossval; printing it shows a table.

    folds: for each fold {"loss": ..., and the metrics} on its held-out samples. sizes: how many
    samples each fold held out.
    """

    folds: list[dict[str, float]]
    sizes: list[int]

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each figure over the folds."""
        return {key: float(np.mean([fold[key] for fold in self.folds])) for key in self.folds[0]}

    @property
    def std(self) -> dict[str, float]:
        """The standard deviation of each figure between the folds (divided by folds - 1)."""
        return {
            key: float(np.std([fold[key] for fold in self.folds], ddof=1)) for key in self.folds[0]
        }

    def __str__(self) -> str:
        keys = list(self.folds[0])
        rows = [["fold", "samples", *keys]]
        for i, (fold, size) in enumerate(zip(self.folds, self.sizes, strict=True), 1):
            rows.append([str(i), str(size), *(format_value(fold[key]) for key in keys)])
        mean, std = self.mean, self.std
        rows.append(["mean", "", *(format_value(mean[key]) for key in keys)])
        rows.append(["± sd", "", *(format_value(std[key]) for key in keys)])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        )


def crossval(
    build_model: Callable[[], Any],
    x: Any,
    y: Any,
    folds: Any = 5,
    stratified: bool = True,
    groups: Sequence[Any] | None = None,
    *,
    seed: int = 0,
    batch_size: int = 32,
    epochs: int = 1,
    verbose: str | int = 0,
    **fit_options: Any,
) -> CrossValidation:
    """Trains a new model per fold on the other folds and measures it on this one.

    Args:
        build_model: makes a new, compiled model each time it is called.
        x: an array (N, ...) of inputs.
        y: an array (N, ...) of targets.
        folds: how many, or (N,) integers that say which fold holds each sample out.
        stratified: whether each fold gets the same share of every class, where y holds classes.
        groups: (N,) what belongs together (a patient, a plant, a day): all samples of a group are
            held out together.
        seed: of the draw of the folds.
        batch_size, epochs, verbose, fit_options: as fit takes them; sample_weight (N,) is cut
            along with x.

    Returns:
        A CrossValidation with the figures per fold, their mean and standard deviation.

    Raises:
        ValueError: when a group leaks from one fold to another, or there are fewer samples or
            groups than folds; TypeError when build_model gives no compiled model.
    """
    from convlet.data.folds import assign_folds, check_folds

    x, y = np.asarray(x), np.asarray(y)
    if x.ndim < 1 or y.ndim < 1 or len(x) != len(y):
        raise ValueError(f"{OWNER}: expected as many targets as samples, got {len(y)} and {len(x)}")
    if "validation_data" in fit_options or "validation_split" in fit_options:
        raise ValueError(f"{OWNER}: expected no validation data: the folds are it")
    labels = class_labels(y) if stratified else None
    try:
        if np.ndim(folds) == 0:
            held_in = assign_folds(len(x), folds, labels, groups, seed)
        else:
            held_in = check_folds(folds, len(x), groups)
    except ValueError as error:
        raise ValueError(f"{OWNER}: {error}") from None
    weights = fit_options.pop("sample_weight", None)
    results, sizes = [], []
    for fold in range(held_in.max() + 1):
        train, held = np.flatnonzero(held_in != fold), np.flatnonzero(held_in == fold)
        model = build_model()
        if not getattr(model, "compiled", False):
            raise TypeError(f"{OWNER}: build_model: expected a compiled model, got {model!r}")
        cut = {} if weights is None else {"sample_weight": np.asarray(weights)[train]}
        model.fit(
            x[train],
            y[train],
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            **cut,
            **fit_options,
        )
        logs = model.evaluate(x[held], y[held], batch_size, verbose=0, return_dict=True)
        results.append({key: float(value) for key, value in logs.items()})
        sizes.append(len(held))
    return CrossValidation(results, sizes)
