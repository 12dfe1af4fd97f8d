"""Which samples an epoch takes, in which order; and how uneven classes are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlet.utils.seeds import generator

UNEVEN = 2.0  # worth a word when the largest class is more than this many times the smallest


def shuffled(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Every index once, in an order that seed and epoch decide."""
    return generator(seed, epoch).permutation(count).astype(np.int64)


class BalancedSampler:
    """Draws every class equally often, so that rare ones count as much as common ones.

    labels: (N,) class of each sample; samples with a negative one (missing) are never drawn.
    seed: with the epoch it decides the draws.

    An epoch has as many draws as there are labelled samples. Within a class no sample comes a
    second time before all have come once.
    """

    def __init__(self, labels: ArrayLike, seed: int = 0) -> None:
        labels = np.asarray(labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iub":
            raise ValueError(
                f"BalancedSampler: labels: expected integers (N,), got {labels.dtype} "
                f"{labels.shape}"
            )
        self.seed = seed
        self._members = [np.flatnonzero(labels == c) for c in np.unique(labels[labels >= 0])]
        self.count = int(sum(len(members) for members in self._members))

    def __len__(self) -> int:
        return self.count

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """The indices of an epoch, in order."""
        draw = generator(self.seed, epoch)
        share, rest = divmod(self.count, max(1, len(self._members)))
        order = draw.permutation(len(self._members))  # who gets one of the rest
        drawn = [np.empty(0, np.int64)]
        for place, c in enumerate(order):
            wanted = share + (place < rest)
            members = self._members[c]
            rounds = -(-wanted // len(members))
            drawn.append(
                np.concatenate([draw.permutation(members) for _ in range(rounds)])[:wanted]
            )
        return draw.permutation(np.concatenate(drawn)).astype(np.int64)


def balanced_weights(labels: ArrayLike, classes: int) -> dict[int, float]:
    """{class: N / (classes that occur * its samples)}: every class weighs the same in the loss, and
    the mean weight of the samples is 1. Negative labels (missing) do not count."""
    labels = np.asarray(labels).reshape(-1)
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    occurring = max(1, int((counts > 0).sum()))
    return {c: float(counts.sum() / (occurring * n)) for c, n in enumerate(counts) if n}


def imbalance(labels: ArrayLike, class_names: Sequence[str]) -> str | None:
    """A line that says how uneven the classes are; None when the largest has at most twice as many
    samples as the smallest."""
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0], minlength=len(class_names))
    low, high = int(counts.argmin()), int(counts.argmax())
    if counts[high] <= UNEVEN * counts[low]:
        return None
    return (
        f"uneven classes: {class_names[high]} has {counts[high]} images, {class_names[low]} "
        f"{counts[low]}"
    )
