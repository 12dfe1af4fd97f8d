"""Seeded, stratified splits that never put one image on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def stratified_split(
    labels: ArrayLike, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut samples into (kept, held) so that every class gives the same share to both.

    labels: (N,) one label per sample. fraction: share to hold, in 0..1. Each class with two samples
    or more gives at least one and keeps at least one; a class of one sample keeps it.
    Returns two sorted index arrays. The same labels, fraction and seed give the same split with
    every version of numpy, for only the raw stream of PCG64 is drawn on.
    Raises ValueError for a fraction outside 0..1.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"stratified_split: expected labels (N,), got shape {labels.shape}")
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"stratified_split: expected fraction in [0, 1), got {fraction}")
    order = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    held = np.zeros(len(labels), dtype=bool)
    if fraction > 0:
        for label in np.unique(labels):
            members = order[labels[order] == label]
            count = int(len(members) * fraction + 0.5)
            held[members[: min(max(count, 1), len(members) - 1)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def assign_parts(
    labels: ArrayLike,
    given: Sequence[str] | NDArray[np.str_],
    hashes: Sequence[str],
    *,
    validation: float,
    test: float,
    seed: int,
) -> NDArray[np.str_]:
    """The part of every sample: "train", "val", "test", or "left out".

    Identical images that the choice is free for stay together. Where the source itself holds an
    image out that it also trains on, the held-out one is left out: it would measure nothing.

    labels: (N,). given: (N,) the part that the source itself fixes, "" where it leaves the choice.
    hashes: (N,) a digest of each sample's content.
    validation, test: shares to hold. `test` is taken when the source fixes neither "val" nor
    "test"; `validation` is taken from what is left for training when the source has no "val".
    """
    labels, parts = np.asarray(labels), np.array(given, dtype="<U8")
    _, first, group = np.unique(np.asarray(hashes), return_index=True, return_inverse=True)

    def hold(part: str, fraction: float, stream: int) -> None:
        free = first[parts[first] == ""]
        _, held = stratified_split(labels[free], fraction, seed + stream)
        chosen = np.isin(group, group[free[held]])
        parts[chosen & (parts == "")] = part

    if not np.isin(parts, ("val", "test")).any():
        parts[:] = ""
        hold("test", test, 0)
    parts[parts == "train"] = ""
    if "val" not in parts:
        hold("val", validation, 1)
    parts[parts == ""] = "train"
    seen = parts == "train"
    for part in ("val", "test"):
        known = (parts == part) & np.isin(group, group[seen])
        parts[known] = "left out"
        seen |= parts == part
    return parts
