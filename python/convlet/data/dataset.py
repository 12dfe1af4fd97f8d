"""Batches of images for fit, evaluate and predict, made ahead of the step by threads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import _core
from convlet.data.batch import Change, ImageBatch
from convlet.data.broken import DEFAULT_LIMIT
from convlet.data.cache import DiskCache, MemoryCache
from convlet.data.pipeline import Buffers, in_order
from convlet.data.preprocessing import Preprocessing
from convlet.data.reader import ImageReader
from convlet.data.sampling import BalancedSampler, shuffled
from convlet.data.source import Source, check_memory, class_positions

LABEL_MODES = ("int", "categorical", "binary", None)
SAMPLING = ("shuffle", "balanced", None)
AHEAD = 2

Augment = Callable[..., NDArray[np.float32]]


class ImageDataset:
    """Batches (x, y) of images, an epoch for each iteration.

    x: uint8 (n,H,W,C), or float32 when the preprocessing scales or an augmentation is set.
    y: by `label_mode` int32 (n,), one-hot float32 (n,classes), or float32 (n,1); a list of arrays
    (n,) for several tasks; nothing (batches are x alone) for None.

    images: file paths, or uint8 pixels (N,H,W,C), which may be mapped from a file.
    labels: (N,) integers, a list of them for several tasks (-1: missing), or None.
    sampling: "shuffle" takes each image once per epoch in a new order, "balanced" draws every class
        equally often, None keeps the order.
    seed: decides orders and augmentation, together with `epoch`, which counts the iterations.
    threads: None takes as many as the kernels use. The batches are the same for any number.
    max_broken: how many images may be unreadable, a number or a share below 1. Broken ones are left
        out of their batches and listed in `broken`; one more than the limit is a ValueError.

    A batch's memory is used again once nothing refers to it.
    """

    def __init__(
        self,
        images: Sequence[str] | NDArray[np.uint8],
        labels: Any = None,
        *,
        preprocessing: Preprocessing,
        class_names: Sequence[str] | None = None,
        batch_size: int = 32,
        label_mode: str | None = "int",
        sampling: str | None = "shuffle",
        seed: int = 0,
        threads: int | None = None,
        max_broken: float = DEFAULT_LIMIT,
        name: str = "images",
    ) -> None:
        if label_mode not in LABEL_MODES:
            raise ValueError(f"{name}: expected label_mode in {LABEL_MODES}, got {label_mode!r}")
        if sampling not in SAMPLING:
            raise ValueError(f"{name}: expected sampling in {SAMPLING}, got {sampling!r}")
        self.name = name
        self.batch_size = _positive(name, "batch_size", batch_size)
        self.class_names = None if class_names is None else list(class_names)
        self.label_mode = label_mode if labels is not None else None
        self.sampling, self.seed, self._passes = sampling, int(seed), _Counter()
        self.threads = None if threads is None else _positive(name, "threads", threads)
        self._tasks = _tasks(name, labels, len(images))
        self._reader = ImageReader(images, preprocessing, max_broken)
        self._augmentation: Augment | None = None
        self._ahead, self._limit = AHEAD, None
        self._buffers = _buffers(AHEAD)
        self._check_label_mode()

    @classmethod
    def from_source(
        cls, source: Source, preprocessing: Preprocessing | None = None, **options: Any
    ) -> ImageDataset:
        """The samples of a Source, which open_source lists. options: as of the constructor."""
        labels = [task.labels for task in source.tasks]
        return cls(
            source.images,
            labels if len(labels) > 1 else labels[0],
            preprocessing=preprocessing or source.default_preprocessing(),
            class_names=source.class_names,
            name=source.name,
            **options,
        )

    def _check_label_mode(self) -> None:
        classes = len(self.class_names or ())
        if len(self._tasks) > 1 and self.label_mode != "int":
            raise ValueError(f"{self.name}: several tasks: expected label_mode 'int'")
        if self.label_mode == "binary" and classes != 2:
            raise ValueError(
                f"{self.name}: label_mode 'binary': expected two classes, got {classes}"
            )
        if self.label_mode == "categorical" and not classes:
            raise ValueError(f"{self.name}: label_mode 'categorical': expected class_names")
        if self.sampling == "balanced" and not self._tasks:
            raise ValueError(f"{self.name}: sampling 'balanced': expected labels")

    # What is in it.

    @property
    def preprocessing(self) -> Preprocessing:
        """How files become x."""
        return self._reader.preprocessing

    @property
    def epoch(self) -> int:
        """How many iterations have begun. Set it to go on as a training that was interrupted."""
        return self._passes.value

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._passes.value = value

    @property
    def file_paths(self) -> list[str]:
        """The files in order, without those that are known to be broken."""
        images = self._reader.images
        return [] if isinstance(images, np.ndarray) else [images[i] for i in self._readable()]

    @property
    def labels(self) -> Any:
        """The labels of `file_paths`: (N,), a list for several tasks, None without labels."""
        kept = self._readable()
        found = [task[kept] for task in self._tasks]
        return found if len(found) > 1 else (found[0] if found else None)

    @property
    def broken(self) -> dict[str, str]:
        """{file: why} of the images that could not be read so far."""
        reasons = self._reader.broken.reasons
        return {self._reader.name(i): reasons[i] for i in sorted(reasons)}

    @property
    def example(self) -> NDArray[Any]:
        """An empty batch x, which shows shape and dtype."""
        plain = self._augmentation is None and self.preprocessing.scale == 1.0
        return np.empty((0, *self._shape), np.uint8 if plain else np.float32)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """(H,W,C) of a batch's images."""
        changed = getattr(self._augmentation, "output_shape", None)
        return self._reader.shape if changed is None else changed(self._reader.shape)

    def _readable(self) -> NDArray[np.int64]:
        broken = self._reader.broken
        return np.array([i for i in range(len(self._reader)) if i not in broken], np.int64)

    def __len__(self) -> int:
        count = (
            int((self._tasks[0] >= 0).sum()) if self.sampling == "balanced" else len(self._reader)
        )
        batches = -(-count // self.batch_size)
        return batches if self._limit is None else min(batches, self._limit)

    # Variants. They share images, cache and the memory of what is broken.

    def cache(self, filename: str | PathLike[str] = "") -> ImageDataset:
        """Keeps decoded images, in memory or in a file that later runs and other processes share.

        Raises ValueError when there is too little memory, or the file belongs to other images.
        """
        reader = copy.copy(self._reader)
        if not isinstance(reader.images, np.ndarray):
            if filename:
                reader.cache = DiskCache(filename, reader.images, reader.preprocessing)
            else:
                check_memory(len(reader), reader.preprocessing)
                reader.cache = MemoryCache(len(reader), reader.shape)
        return self._with(_reader=reader)

    def augment(self, augmentation: Augment | None) -> ImageDataset:
        """Changes each batch by a convlet.data.Augmentation, or anything that is called alike:
        augmentation(x, indices, epoch, seed, out=) with uint8 x (n,H,W,C) and the images' indices
        (n,) writes float32 `out`, of augmentation.output_shape((H,W,C)) if there is one.

        Raises ValueError when the images are too small for it, or when it has a scale or offset:
        evaluate and predict, which do not augment, would see another range of values.
        """
        scale, offset = getattr(augmentation, "scale", 1), getattr(augmentation, "offset", 0)
        if scale != 1 or offset != 0:
            raise ValueError(
                f"{self.name}: augment: expected scale 1 and offset 0, got {scale} and {offset}: "
                "images that are not augmented need them, too; begin the model with Rescaling, or "
                "give the data set a Preprocessing with a scale"
            )
        augmented = self._with(_augmentation=augmentation)
        _ = augmented.example
        return augmented

    def prefetch(self, buffer_size: int | None = None) -> ImageDataset:
        """How many batches may be ready ahead of the one in use (2 at first, or for None)."""
        buffer_size = AHEAD if buffer_size is None or buffer_size == -1 else buffer_size
        ahead = _positive(self.name, "buffer_size", buffer_size)
        return self._with(_ahead=ahead, _buffers=_buffers(ahead))

    def take(self, count: int) -> ImageDataset:
        """The first batches of an epoch only."""
        limit = _positive(self.name, "count", count)
        return self._with(_limit=limit if self._limit is None else min(limit, self._limit))

    def in_order(self) -> ImageDataset:
        """The images each once, in the order of `file_paths`, and not augmented."""
        return self._with(sampling=None, _augmentation=None)

    def aligned_to(self, class_names: Sequence[str]) -> ImageDataset:
        """The same samples with labels that count in `class_names`, matched by name.

        Raises ValueError that names the classes which are unknown there or missing here.
        """
        if self.class_names is None or self.class_names == list(class_names) or not self._tasks:
            return self
        position = class_positions(self.name, self.class_names, class_names)
        first = np.where(self._tasks[0] < 0, -1, position[self._tasks[0]])
        aligned = self._with(
            class_names=list(class_names), _tasks=[first, *self._tasks[1:]], _passes=self._passes
        )
        aligned._check_label_mode()
        return aligned

    def _with(self, **changes: Any) -> ImageDataset:
        other = copy.copy(self)
        other._passes = _Counter(self._passes.value)
        vars(other).update(changes)
        return other

    # Iteration.

    def __iter__(self) -> Iterator[Any]:
        epoch = self._passes.next()
        order = self._order(epoch)
        batches = [
            order[begin : begin + self.batch_size]
            for begin in range(0, len(order), self.batch_size)
        ][: len(self)]
        change = self._change(epoch)
        jobs = (ImageBatch(self._reader, rows, self._buffers, change) for rows in batches)
        return self._pass(jobs)

    def _pass(self, jobs: Iterator[ImageBatch]) -> Generator[Any, None, None]:
        made = self._made(jobs)
        try:
            for batch in made:
                for index, reason in batch.broken.items():
                    if index not in self._reader.broken:
                        self._reader.broken.add(index, reason)
                x, rows = batch.x, batch.rows
                del batch
                if len(rows):
                    y = self._targets(rows)
                    yield x if y is None else (x, y)
                del x
        finally:
            made.close()

    def _made(self, jobs: Iterator[ImageBatch]) -> Generator[ImageBatch, None, None]:
        if (
            self._augmentation is None and not self._reader.needs_work
        ):  # copying memory takes no threads
            for job in jobs:
                for part in range(job.parts):
                    job.work(part)
                yield job.finish()
        else:
            yield from in_order(jobs, self.threads or _core.num_threads(), self._ahead)

    def _change(self, epoch: int) -> Change | None:
        augmentation = self._augmentation
        if augmentation is None:
            return None
        return Change(
            lambda x, rows, out: augmentation(x, rows, epoch, self.seed, out=out), self._shape
        )

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self.sampling == "balanced":
            return BalancedSampler(self._tasks[0], self.seed).epoch(epoch)
        if self.sampling == "shuffle":
            return shuffled(len(self._reader), self.seed, epoch)
        return np.arange(len(self._reader), dtype=np.int64)

    def _targets(self, rows: NDArray[np.int64]) -> Any:
        if self.label_mode is None:
            return None
        labels = [task[rows] for task in self._tasks]
        if self.label_mode == "categorical":
            one_hot = np.zeros((len(rows), len(self.class_names or ())), np.float32)
            one_hot[np.arange(len(rows)), labels[0]] = 1
            return one_hot
        if self.label_mode == "binary":
            return labels[0].astype(np.float32)[:, None]
        labels = [values.astype(np.int32) for values in labels]
        return labels if len(labels) > 1 else labels[0]


def _buffers(ahead: int) -> Buffers:
    """The memory of the batches that are under way, kept from pass to pass: fresh memory costs more
    than what is written into it, and an allocator may or may not hand it back in between."""
    return Buffers(2 * (ahead + 2))


class _Counter:
    """A count of passes that aligned copies share."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def next(self) -> int:
        self.value += 1
        return self.value - 1


def _tasks(name: str, labels: Any, count: int) -> list[NDArray[np.int64]]:
    if labels is None:
        return []
    listed = labels if isinstance(labels, list) and np.ndim(labels[:1]) == 2 else [labels]
    tasks = []
    for values in listed:
        array = np.asarray(values)
        if array.shape != (count,) or array.dtype.kind not in "iub":
            raise ValueError(
                f"{name}: labels: expected integers ({count},), got {array.dtype} {array.shape}"
            )
        tasks.append(array.astype(np.int64))
    return tasks


def _positive(name: str, argument: str, value: Any) -> int:
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not integer or value < 1:
        raise ValueError(f"{name}: {argument}: expected an integer of at least 1, got {value!r}")
    return int(value)
