"""The batches of an epoch, from samples in memory or from an iterable, and validation splits."""

from collections.abc import Callable, Generator, Iterable, Iterator
from types import GeneratorType
from typing import Any

import numpy as np

from convlet.models.data import Batch, DataAdapter, Rows, Samples, class_labels

Epoch = Generator[Batch, None, None]

_END = object()


def is_arrays(x: Any) -> bool:
    """Whether x is data in memory rather than an iterable of batches."""
    return isinstance(x, (list, tuple, dict)) or hasattr(x, "__array__")


def check_iterable(owner: str, x: Any, batches: str) -> None:
    """TypeError unless x is an iterable or has batches by index."""
    if not hasattr(x, "__iter__") and not hasattr(x, "__getitem__"):
        raise TypeError(
            f"{owner}: x: expected arrays or an iterable of {batches}, got {type(x).__name__}"
        )


class Batches:
    """The batches of an epoch."""

    batch_size: int
    steps: int | None  # batches in an epoch, where known
    count: int | None  # samples in an epoch, where known

    def epoch(self, order: np.random.Generator | None) -> Epoch:
        """One epoch; ``order`` shuffles it."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends a pass that an epoch has left open for the next one."""


class ArrayBatches(Batches):
    """Batches of samples in memory. Nothing is copied: a batch is a list of rows.

    Args:
        rows: of the samples that belong to the set; None for all.
        steps: batches in an epoch; None for all there are.
    """

    def __init__(
        self,
        owner: str,
        samples: Samples,
        batch_size: int,
        rows: Rows | None = None,
        steps: int | None = None,
    ):
        self.samples, self.batch_size = samples, batch_size
        self.rows = np.arange(len(samples), dtype=np.int64) if rows is None else rows
        self.steps = step_limit(owner, len(self.rows), batch_size, steps)
        self.count = min(len(self.rows), self.steps * batch_size)

    def epoch(self, order: np.random.Generator | None) -> Epoch:
        rows = self.rows if order is None else self.rows[order.permutation(len(self.rows))]
        rows = rows if self.count == len(rows) else rows[: self.count]
        for first in range(0, self.count, self.batch_size):
            yield Batch(self.samples, rows[first : first + self.batch_size], rows, first)


class IterableBatches(Batches):
    """Batches that an iterable gives as (x, y) or (x, y, sample_weight). An epoch is one pass, or
    ``steps`` batches of an endless one."""

    def __init__(
        self, adapter: DataAdapter, iterable: Iterable[Any], class_weight: Any, steps: int | None
    ):
        self.adapter, self.iterable, self.class_weight = adapter, iterable, class_weight
        self.batch_size, self.count = 1, None
        self._limit = steps
        self.steps = len(iterable) if steps is None and hasattr(iterable, "__len__") else steps
        self._open: tuple[Iterator[Any], Callable[[], None]] | None = None  # where an epoch ended

    def epoch(self, order: np.random.Generator | None) -> Epoch:
        owner = self.adapter.owner
        iterator, close = self._open or open_pass(self.iterable)
        self._open = None
        taken = 0
        try:
            while self._limit is None or taken < self._limit:
                batch = next(iterator, _END)
                if batch is _END and self._limit is not None:
                    # A pass ended in the middle of an epoch: go on from the start, if there is one.
                    iterator, close = open_pass(self.iterable)
                    batch = next(iterator, _END)
                if batch is _END:
                    break
                yield self._batch(batch)
                taken += 1
            if taken == 0 or (self._limit is not None and taken < self._limit):
                wanted = "at least one batch" if self._limit is None else f"{self._limit} batches"
                raise ValueError(
                    f"{owner}: x: expected {wanted} for an epoch, the data ran out at {taken}"
                )
            if self._limit is not None:
                self._open = iterator, close
        finally:
            # An exception here or in who asked for the batch: its traceback would keep the pass.
            if self._open is None:
                close()
        if self._limit is None and hasattr(self.iterable, "on_epoch_end"):
            self.iterable.on_epoch_end()

    def close(self) -> None:
        if self._open is not None:
            self._open[1]()
            self._open = None

    def _batch(self, batch: Any) -> Batch:
        owner = self.adapter.owner
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise ValueError(
                f"{owner}: x: expected batches (x, y) or (x, y, sample_weight), "
                f"got {type(batch).__name__}"
            )
        samples = self.adapter.samples(
            batch[0], batch[1], batch[2] if len(batch) == 3 else None, self.class_weight
        )
        self.batch_size = max(self.batch_size, len(samples))
        return Batch(samples, np.arange(len(samples), dtype=np.int64))


def open_pass(iterable: Any) -> tuple[Iterator[Any], Callable[[], None]]:
    """One pass, by iter() or, for an object with __len__ and __getitem__ only, by index; and what
    ends it early: nothing where the iterator is the caller's own."""
    if hasattr(iterable, "__iter__"):
        iterator = iter(iterable)
    else:
        iterator = (iterable[i] for i in range(len(iterable)))
    if isinstance(iterator, GeneratorType) and iterator is not iterable:
        return iterator, iterator.close
    return iterator, _leave_open


def _leave_open() -> None:
    pass


def step_limit(name: str, samples: int, batch_size: int, steps: int | None) -> int:
    """The batches that ``samples`` make, or ``steps`` of them; ValueError when there are fewer."""
    available = -(-samples // batch_size)
    if steps is not None and steps > available:
        raise ValueError(
            f"{name}: expected at most {available} steps of {batch_size} from "
            f"{samples} samples, got {steps}"
        )
    return available if steps is None else steps


def split_rows(samples: Samples, fraction: Any, stratify: bool, seed: int) -> tuple[Rows, Rows]:
    """(training rows, validation rows): shuffled, seeded and, with ``stratify``, with the same
    share of every class of the first targets in both."""
    from convlet.data import stratified_split

    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise ValueError(f"fit: validation_split: expected a number in [0, 1), got {fraction!r}")
    one_class = np.zeros(len(samples), np.int64)
    labels = class_labels(samples.truths[0]) if stratify else None
    train, held = stratified_split(one_class if labels is None else labels, float(fraction), seed)
    if len(held) == 0:  # no class has two samples
        train, held = stratified_split(one_class, float(fraction), seed)
    if len(held) == 0 or len(train) == 0:
        raise ValueError(
            f"fit: validation_split: {fraction} of {len(samples)} samples leaves {len(train)} to "
            f"train on and {len(held)} to validate with"
        )
    return train.astype(np.int64), held.astype(np.int64)


def peek(iterable: Any, owner: str) -> tuple[Any, Any]:
    """The first x that an iterable gives, and the iterable with nothing lost."""
    iterator = iter(iterable)
    first = next(iterator, None)
    if not isinstance(first, (tuple, list)) or len(first) not in (2, 3):
        raise ValueError(
            f"{owner}: x: expected batches (x, y) or (x, y, sample_weight), got {first!r}"
        )
    if iterator is not iterable:
        return iterable, first[0]

    def again() -> Any:
        yield first
        yield from iterator

    return again(), first[0]


def balanced(owner: str, class_weight: str, y: Any) -> dict[int, float]:
    """The weights that class_weight="balanced" stands for, from all labels y."""
    from convlet.data.sampling import balanced_weights

    if class_weight != "balanced":
        raise ValueError(
            f"{owner}: class_weight: expected a dict, None or 'balanced', got {class_weight!r}"
        )
    known = y is not None and not isinstance(y, (list, tuple, dict))
    labels = class_labels(np.asarray(y)) if known else None
    if labels is None or not len(labels):
        raise ValueError(
            f"{owner}: class_weight: 'balanced': expected class labels in y, or an ImageDataset "
            "with labels in x"
        )
    return balanced_weights(labels, int(labels.max()) + 1)
