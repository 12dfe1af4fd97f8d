"""Batches in which images, and their labels with them, are mixed with each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.losses import integer_labels
from convlet.utils.numeric import to_categorical
from convlet.utils.seeds import generator

F32 = NDArray[np.float32]


class Mixing:
    """Base: what is done to a batch.

    Called on data it gives batches for fit::

        mixed = MixUp(0.2)(x_train, y_train, num_classes=10, batch_size=64)
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        model.fit(mixed, epochs=10, validation_data=(x_test, to_categorical(y_test)))
    """

    def mix(
        self, x: NDArray[Any], draw: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[np.int64], F32]:
        """Mixes a batch x (n, ...).

        Returns:
            The new x, and for each sample: which other one is mixed in, and its own share (n,).
        """
        raise NotImplementedError

    def __call__(
        self,
        data: Any,
        y: Any = None,
        *,
        num_classes: int | None = None,
        batch_size: int = 32,
        seed: int = 0,
    ) -> MixedBatches:
        """Batches (x, y) with y (n, classes) of probabilities, for 'categorical_crossentropy'.

        Args:
            data: x (N, ...) with y; or an iterable of batches (x, y) or (x, y, sample_weight), such
                as an ImageDataset, or other mixed batches.
            y: integers (N,) or (N,1), or probabilities (N, classes).
            num_classes: needed for integers, unless data knows its class_names.
            batch_size: of arrays; they are shuffled anew in each epoch.
            seed: decides, with the epoch and the step, all that is drawn.
        """
        source = data if y is None else _ArrayBatches(data, y, batch_size, seed)
        names = getattr(data, "class_names", None)
        if num_classes is None and names is not None:
            num_classes = len(names)
        return MixedBatches(self, source, num_classes, seed)


class MixUp(Mixing):
    """Each image becomes s * image + (1 - s) * another one of the batch, and its label likewise,
    with its own s from Beta(alpha, alpha) (Zhang et al. 2018). x becomes float32."""

    def __init__(self, alpha: float = 0.2):
        self.alpha = _positive("MixUp", alpha)

    def mix(
        self, x: NDArray[Any], draw: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[np.int64], F32]:
        share = draw.beta(self.alpha, self.alpha, len(x)).astype(np.float32)
        partner = draw.permutation(len(x))
        mixed = x.astype(np.float32)
        mixed += (1 - share).reshape(-1, *(1,) * (x.ndim - 1)) * (mixed[partner] - mixed)
        return mixed, partner, share


class CutMix(Mixing):
    """In each image a rectangle is replaced by that of another one of the batch, and the label by
    the same share. The rectangle has the share 1 - Beta(alpha, alpha) of the area, before it is cut
    off at the edges, and its middle anywhere (Yun et al. 2019). x keeps its dtype."""

    def __init__(self, alpha: float = 1.0):
        self.alpha = _positive("CutMix", alpha)

    def mix(
        self, x: NDArray[Any], draw: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[np.int64], F32]:
        if x.ndim < 3:
            raise ValueError(f"CutMix: expected images (n,H,W) or (n,H,W,C), got shape {x.shape}")
        count, size = len(x), np.array(x.shape[1:3])
        side = np.sqrt(1 - draw.beta(self.alpha, self.alpha, count))[:, None] * size / 2
        middle = draw.random((count, 2)) * size
        first = np.clip(np.rint(middle - side), 0, size).astype(np.int64)
        last = np.clip(np.rint(middle + side), 0, size).astype(np.int64)
        partner = draw.permutation(count)
        mixed = x.copy()
        for i in range(count):
            (top, left), (bottom, right) = first[i], last[i]
            mixed[i, top:bottom, left:right] = x[partner[i], top:bottom, left:right]
        share = 1 - (last - first).prod(axis=1) / size.prod()
        return mixed, partner, share.astype(np.float32)


class RandomChoice(Mixing):
    """One of several mixings for each batch, with equal chances: RandomChoice([MixUp(),
    CutMix()])."""

    def __init__(self, mixings: Sequence[Mixing]):
        if not mixings or not all(isinstance(mixing, Mixing) for mixing in mixings):
            raise ValueError(f"RandomChoice: mixings: expected a list of them, got {mixings!r}")
        self.mixings = list(mixings)

    def mix(
        self, x: NDArray[Any], draw: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[np.int64], F32]:
        return self.mixings[draw.integers(len(self.mixings))].mix(x, draw)


class MixedBatches:
    """What a Mixing makes of data: an iterable for fit, an epoch for each iteration. ``epoch``
    counts the iterations; set it to go on as a training that was interrupted."""

    def __init__(self, mixing: Mixing, source: Iterable[Any], classes: int | None, seed: int):
        self.mixing, self.source, self.classes, self.seed = mixing, source, classes, int(seed)
        self._owner = type(mixing).__name__
        self._epoch = 0

    @property
    def epoch(self) -> int:
        return self._epoch

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._epoch = value
        if hasattr(self.source, "epoch"):
            self.source.epoch = value

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        epoch = self._epoch
        self._epoch += 1
        for step, batch in enumerate(self.source):
            yield self._mixed(batch, generator(self.seed, epoch, step))

    def __getattr__(self, name: str) -> Any:
        # What a model remembers of the images that it learns from, where the source knows it.
        if name in ("class_names", "preprocessing", "example"):
            return getattr(self.source, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _mixed(self, batch: Any, draw: np.random.Generator) -> tuple[Any, ...]:
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise ValueError(
                f"{self._owner}: expected batches (x, y) or (x, y, sample_weight), "
                f"got {type(batch).__name__}"
            )
        y = self._probabilities(batch[1])
        x, partner, share = self.mixing.mix(np.asarray(batch[0]), draw)
        if len(batch) == 2:
            return x, _shared(y, partner, share)
        # The weighted sum of both losses, as the loss of one weighted sample.
        weight = np.asarray(batch[2], np.float32)
        both = share * weight + (1 - share) * weight[partner]
        own = np.divide(share * weight, both, out=share.copy(), where=both > 0)
        return x, _shared(y, partner, own), both

    def _probabilities(self, y: Any) -> F32:
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] > 1:
            return labels.astype(np.float32)
        if labels.ndim != 1 and labels.shape[1:] != (1,):
            raise ValueError(
                f"{self._owner}: y: expected labels (n,) or (n,1) or probabilities (n,classes) of "
                f"one task, got shape {labels.shape}"
            )
        if self.classes is None:
            raise ValueError(f"{self._owner}: num_classes: expected a number for integer labels")
        labels = integer_labels(labels.reshape(-1), f"{self._owner}: y")
        return to_categorical(labels, self.classes)


def _shared(y: F32, partner: NDArray[np.int64], share: F32) -> F32:
    return share[:, None] * y + (1 - share)[:, None] * y[partner]


class _ArrayBatches:
    """Batches of arrays, in a new order in each epoch."""

    def __init__(self, x: Any, y: Any, batch_size: int, seed: int):
        self.x, self.y = np.asarray(x), np.asarray(y)
        if len(self.x) != len(self.y):
            raise ValueError(
                f"mixing: expected as many labels as samples, got {len(self.y)} and {len(self.x)}"
            )
        if isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"mixing: batch_size: expected a positive integer, got {batch_size!r}")
        self.batch_size, self.seed, self.epoch = int(batch_size), int(seed), 0

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        order = generator(self.seed, self.epoch).permutation(len(self.x))
        self.epoch += 1
        for begin in range(0, len(order), self.batch_size):
            rows = order[begin : begin + self.batch_size]
            yield self.x[rows], self.y[rows]


def _positive(owner: str, alpha: Any) -> float:
    number = isinstance(alpha, (int, float, np.number)) and not isinstance(alpha, bool)
    if not number or not 0 < alpha < np.inf:
        raise ValueError(f"{owner}: alpha: expected a number above 0, got {alpha!r}")
    return float(alpha)
