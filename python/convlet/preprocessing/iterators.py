"""What ImageDataGenerator's flow and flow_from_directory return."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convlet.data.dataset import ImageDataset
from convlet.data.pipeline import Buffers
from convlet.data.preprocessing import Preprocessing
from convlet.data.sampling import shuffled
from convlet.data.split import stratified_split
from convlet.layers import arguments
from convlet.utils.image_dataset import image_dataset_from_directory

SUBSETS = (None, "training", "validation")
CLASS_MODES = {
    "categorical": "categorical",
    "sparse": "int",
    "binary": "binary",
    "input": None,
    None: None,
}
SPLIT_SEED = 0  # training and validation are asked for one after the other, and must not overlap


class Generator(Protocol):
    """What iterators ask of the ImageDataGenerator that made them."""

    validation_split: float

    @property
    def pixel_scale(self) -> float | None: ...
    def augment(
        self,
        x: NDArray[Any],
        indices: NDArray[np.int64] | None = None,
        epoch: int = 0,
        seed: int = 0,
        *,
        rows: NDArray[np.int64] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]: ...


class ImageIterator:
    """Batches without end for next(); a for loop is one pass. Each pass has its own order and
    changes, which seed and number of the pass decide."""

    batch_size: int

    def __init__(self) -> None:
        self._running: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def __next__(self) -> Any:
        while True:
            if self._running is None:
                self._running = iter(self)
            for batch in self._running:
                return batch
            self._running = None

    next = __next__

    def reset(self) -> None:
        """The next batch is the first of a new pass."""
        self._running = None


class ArrayIterator(ImageIterator):
    """Batches of images in memory.

    n: how many images. A batch's memory is used again once nothing refers to it.
    """

    def __init__(
        self,
        generator: Generator,
        x: Any,
        y: Any,
        sample_weight: Any,
        batch_size: int,
        shuffle: bool,
        seed: int,
        subset: str | None,
    ):
        super().__init__()
        owner = "ImageDataGenerator.flow"
        x = np.asarray(x)
        if x.ndim != 4 or x.dtype.kind not in "fiub":
            raise ValueError(
                f"{owner}: x: expected images (N,H,W,C) of numbers, got {x.dtype} {x.shape}"
            )
        self.x = x if x.dtype == np.uint8 else np.ascontiguousarray(x, np.float32)
        self.y = None if y is None else np.asarray(y)
        self.sample_weight = None if sample_weight is None else np.asarray(sample_weight)
        for name, values in (("y", self.y), ("sample_weight", self.sample_weight)):
            if values is not None and (values.ndim == 0 or len(values) != len(x)):
                raise ValueError(
                    f"{owner}: {name}: expected one for each of {len(x)} images, "
                    f"got shape {values.shape}"
                )
        if self.y is None and sample_weight is not None:
            raise ValueError(f"{owner}: sample_weight: expected None without y")
        self.batch_size = arguments.integer(owner, "batch_size", batch_size)
        self.shuffle = arguments.flag(owner, "shuffle", shuffle)
        self.seed, self.epoch = seed, 0
        self._generator = generator
        self._rows = self._subset(owner, subset, generator.validation_split)
        if len(self._rows) == 0:
            raise ValueError(f"{owner}: x: expected at least one image, got none")
        self._buffers = Buffers(3)

    def _subset(self, owner: str, subset: str | None, share: float) -> NDArray[np.int64]:
        if subset not in SUBSETS:
            raise arguments.expected(owner, "subset", f"one of {SUBSETS}", subset)
        if subset is None:
            return np.arange(len(self.x), dtype=np.int64)
        if not share:
            raise ValueError(
                f"{owner}: subset: expected None without a validation_split, got {subset!r}"
            )
        one_class = np.zeros(len(self.x), np.int64)
        labels = self.y if self.y is not None and self.y.ndim in (1, 2) else one_class
        if labels.ndim == 2:
            labels = labels.argmax(axis=1) if labels.shape[1] > 1 else labels[:, 0]
        training, held = stratified_split(labels, share, SPLIT_SEED)
        return training if subset == "training" else held

    @property
    def n(self) -> int:
        return len(self._rows)

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        epoch = self.epoch
        self.epoch += 1
        for i in range(len(self)):
            yield self._batch(i, epoch)

    def __getitem__(self, i: int) -> Any:
        """Batch i of the pass that comes next."""
        if not 0 <= i < len(self):
            raise IndexError(f"expected a batch in [0, {len(self)}), got {i}")
        return self._batch(i, self.epoch)

    def _batch(self, i: int, epoch: int) -> Any:
        order = self._rows
        if self.shuffle:
            order = order[shuffled(len(order), self.seed, epoch)]
        rows = order[i * self.batch_size : (i + 1) * self.batch_size]
        out = self._buffers.array((len(rows), *self.x.shape[1:]), np.float32)
        x = self._generator.augment(self.x, None, epoch, self.seed, rows=rows, out=out)
        if self.y is None:
            return x
        if self.sample_weight is None:
            return x, self.y[rows]
        return x, self.y[rows], self.sample_weight[rows]


class DirectoryIterator(ImageIterator):
    """Batches of images in folders, decoded and changed by threads ahead of the step.

    A model that is fit to it learns the class names, and the preprocessing where that is a resize
    and a factor (`rescale`); labels are matched to the model's classes by name.

    dataset: the ImageDataset behind it. class_indices: {folder: label}. filenames: in the order of
    the folders. samples: how many.
    """

    def __init__(
        self,
        generator: Generator,
        directory: Any,
        *,
        class_mode: str | None,
        subset: str | None,
        **options: Any,
    ):
        super().__init__()
        owner = "ImageDataGenerator.flow_from_directory"
        if class_mode not in CLASS_MODES:
            raise arguments.expected(
                owner, "class_mode", f"one of {tuple(CLASS_MODES)}", class_mode
            )
        if subset not in SUBSETS:
            raise arguments.expected(owner, "subset", f"one of {SUBSETS}", subset)
        if subset is not None:
            if not generator.validation_split:
                raise ValueError(
                    f"{owner}: subset: expected None without a validation_split, got {subset!r}"
                )
            options["validation_split"] = generator.validation_split
        seed = options.pop("seed")
        dataset = image_dataset_from_directory(
            directory, label_mode=CLASS_MODES[class_mode], subset=subset, seed=SPLIT_SEED, **options
        )
        self.dataset = dataset.augment(generator.augment)
        self.dataset.seed = seed  # of orders and changes, after the split
        self._generator, self._class_mode = generator, class_mode
        self.batch_size = dataset.batch_size
        self.num_classes = len(dataset.class_names)
        self.image_shape = dataset.preprocessing.input_shape

    @property
    def class_indices(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.dataset.class_names or ())}

    @property
    def classes(self) -> NDArray[np.int64] | None:
        """The label of each file, where the class mode has labels."""
        return self.dataset.labels

    @property
    def filepaths(self) -> list[str]:
        return self.dataset.file_paths

    @property
    def samples(self) -> int:
        return len(self.filepaths)

    @property
    def n(self) -> int:
        return self.samples

    @property
    def filenames(self) -> list[str]:
        """The files as "class/name"."""
        return [os.path.join(*path.split(os.sep)[-2:]) for path in self.filepaths]

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.dataset:
            yield (batch, batch) if self._class_mode == "input" else batch

    # What fit, evaluate and predict ask of a data set, as of an ImageDataset.

    @property
    def class_names(self) -> list[str] | None:
        """The folders in the order of their labels; None where the class mode has no labels."""
        return self.dataset.class_names if self.dataset.label_mode is not None else None

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The same as `classes`."""
        return self.classes

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a file becomes x where nothing is changed at random; None where that takes more than
        a Preprocessing does."""
        scale = self._generator.pixel_scale
        return None if scale is None else replace(self.dataset.preprocessing, scale=scale)

    @property
    def example(self) -> NDArray[Any]:
        """An empty batch x, which shows shape and dtype."""
        return self.dataset.example

    def aligned_to(self, class_names: Sequence[str]) -> DirectoryIterator:
        """The same images with labels that count in `class_names`, matched by name."""
        return self._of(self.dataset.aligned_to(class_names))

    def in_order(self) -> DirectoryIterator:
        """The images each once, in the order of `filenames`, changed as the generator says."""
        return self._of(self.dataset.in_order().augment(self._generator.augment))

    def _of(self, dataset: ImageDataset) -> DirectoryIterator:
        other = copy.copy(self)
        other.dataset, other._running = dataset, None
        return other
