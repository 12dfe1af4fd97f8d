"""Folds for cross-validation: stratified, and never one group on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlet.utils.seeds import generator


def assign_folds(
    count: int,
    folds: int,
    labels: ArrayLike | None = None,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """(count,) the fold, in 0..folds-1, that each sample is held out in.

    labels: (count,) classes; each fold then gets the same share of every class, as far as groups
    allow. groups: (count,) what belongs together (the patient, the plant, the day): all samples of
    a group are in one fold. seed: decides the draw.
    Raises ValueError when there are fewer samples, or groups, than folds.
    """
    if isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or folds < 2:
        raise ValueError(f"folds: expected an integer of at least 2, got {folds!r}")
    _, group = np.unique(_column("groups", groups, count), return_inverse=True)
    _, label = np.unique(_column("labels", labels, count, 0), return_inverse=True)
    sizes = np.zeros((group.max(initial=-1) + 1, label.max(initial=-1) + 1), np.int64)
    np.add.at(sizes, (group, label), 1)
    if len(sizes) < folds:
        what = "samples" if groups is None else "groups"
        raise ValueError(
            f"folds: expected at most {len(sizes)} for {len(sizes)} {what}, got {folds}"
        )
    return _place(sizes, int(folds), seed)[group]


def _place(sizes: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each group, from the samples (groups, classes) it has: the largest first, each to
    where its classes are rarest so far, then to the smallest fold."""
    draw = generator(seed, 0)
    order = draw.permutation(len(sizes))
    order = order[np.argsort(-sizes[order].sum(axis=1), kind="stable")]
    share = np.maximum(sizes.sum(axis=0), 1) / folds
    filled = np.zeros((folds, sizes.shape[1]))
    place = np.empty(len(sizes), np.int64)
    for group in order:
        here = sizes[group]
        crowding = (filled / share) @ here
        fullness = filled.sum(axis=1)
        place[group] = np.lexsort((fullness, np.round(crowding, 9)))[0]
        filled[place[group]] += here
    return place


def check_folds(
    assigned: ArrayLike, count: int, groups: Sequence[Any] | NDArray[Any] | None
) -> NDArray[np.int64]:
    """Folds that the user has assigned: (count,) integers.

    Raises ValueError when there are fewer than two, or when a group leaks: some of its samples
    would be trained on while others measure the model.
    """
    folds = np.asarray(assigned)
    if folds.shape != (count,) or folds.dtype.kind not in "iu":
        raise ValueError(
            f"folds: expected a number, or integers ({count},), got {folds.dtype} {folds.shape}"
        )
    values, folds = np.unique(folds, return_inverse=True)
    if len(values) < 2:
        raise ValueError(f"folds: expected at least two, got {values.tolist()}")
    names = _column("groups", groups, count)
    for name in np.unique(names) if groups is not None else ():
        found = np.unique(folds[names == name])
        if len(found) > 1:
            raise ValueError(
                f"folds: the group {name!s} leaks: it is in the folds {values[found].tolist()}"
            )
    return folds.astype(np.int64)


def _column(name: str, values: Any, count: int, default: int | None = None) -> NDArray[Any]:
    """(count,) values; by default all the same, or each its own."""
    if values is None:
        return np.arange(count) if default is None else np.full(count, default)
    column = np.asarray(values)
    if column.shape != (count,):
        raise ValueError(f"{name}: expected one for each of {count} samples, got {column.shape}")
    return column
