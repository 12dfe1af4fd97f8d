"""Labelled images that are listed, and then decoded into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import _core
from convlet.data.broken import DEFAULT_LIMIT, BrokenImages, some_lines
from convlet.data.folders import printable
from convlet.data.image import read_header
from convlet.data.preprocessing import Preprocessing

LARGEST_DEFAULT_SIZE = 128


@dataclass(frozen=True)
class Task:
    """What there is to learn of each sample: labels (N,) int64 that index class_names, -1 where the
    label is missing. name: of the column, and of the model's output that learns it."""

    name: str
    class_names: list[str]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Labelled images that are listed but not yet loaded.

    name: short name, for run folders. tasks: one, or one per label column of a CSV.
    ids: (N,) what to call each sample in messages and records. parts: (N,) "train", "val" or "test"
    where the source itself fixes it, else "". images: (N,) file paths, or uint8 pixels (N,H,W,C).
    skipped: {file: why} of what is no image. broken: {file: why} of images that cannot be read.
    """

    name: str
    tasks: list[Task]
    ids: list[str]
    parts: NDArray[np.str_]
    images: Sequence[str] | NDArray[np.uint8]
    skipped: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def class_names(self) -> list[str]:
        """The classes of the first task."""
        return self.tasks[0].class_names

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels of the first task."""
        return self.tasks[0].labels

    def left_out(self) -> list[str]:
        """What to say of the files that are skipped and of the images that cannot be read."""
        lines = []
        for files, what in (
            (self.skipped, "files are skipped"),
            (self.broken, "images cannot be read"),
        ):
            if files:
                reasons = [
                    reason if name in reason else f"{name}: {reason}"
                    for name, reason in files.items()
                ]
                lines.append(f"{len(files)} {what}: {some_lines(reasons, '; ')}")
        return lines

    def subset(self, indices: NDArray[np.int64]) -> Source:
        """The samples at `indices`, with the same classes."""
        images = self.images
        chosen = images[indices] if isinstance(images, np.ndarray) else [images[i] for i in indices]
        return replace(
            self,
            tasks=[Task(t.name, t.class_names, t.labels[indices]) for t in self.tasks],
            ids=[self.ids[i] for i in indices],
            parts=self.parts[indices],
            images=chosen,
        )

    def default_preprocessing(
        self, size: int | None = None, resize: str = "stretch"
    ) -> Preprocessing:
        """The Preprocessing that suits these images.

        size: height and width to use; None takes the images' own size if they all share one of at
        most 128 pixels, else 128x128. Grey only if every image is grey. Files that cannot be read
        have no say; ValueError when that is all of them.
        """
        if isinstance(self.images, np.ndarray):
            shapes, color = {self.images.shape[1:3]}, self.images.shape[3] == 3
        else:
            with ThreadPoolExecutor(_core.num_threads()) as pool:
                headers = list(pool.map(_header_or_reason, self.images))
            read = [header for header in headers if not isinstance(header, str)]
            if not read:
                raise ValueError(f"{self.name}: no image can be read: {headers[0]}")
            shapes, color = {shape for shape, _ in read}, any(color for _, color in read)
        own = shapes.pop() if len(shapes) == 1 else (LARGEST_DEFAULT_SIZE + 1, 0)
        if size is None and max(own) > LARGEST_DEFAULT_SIZE:
            size = LARGEST_DEFAULT_SIZE
        return Preprocessing(
            size=(size, size) if size is not None else (int(own[0]), int(own[1])),
            color_mode="rgb" if color else "grayscale",
            resize=resize,
        )

    def load(
        self, preprocessing: Preprocessing, max_broken: float = DEFAULT_LIMIT
    ) -> tuple[Source, NDArray[Any], list[str]]:
        """Decode everything into memory.

        Returns the samples that can be read (the others are in its `broken`), their model inputs
        (N,H,W,C), and for each a digest of its content (file bytes or pixels).
        max_broken: how many images may be unreadable, a number or a share below 1.
        Raises ValueError when more are, or when the memory is too small.
        """
        check_memory(len(self), preprocessing)
        if isinstance(self.images, np.ndarray):
            digests = [_digest(np.ascontiguousarray(image)) for image in self.images]
            same = self.images.shape[1:] == preprocessing.input_shape and preprocessing.scale == 1.0
            return self, (self.images if same else preprocessing.batch(self.images)), digests
        pixels = np.empty((len(self), *preprocessing.input_shape), dtype=np.uint8)
        broken = BrokenImages(len(self), max_broken)
        digests = []
        with closing(self._read_all(pixels, preprocessing)) as outcomes:
            for i, (digest, reason) in enumerate(outcomes):
                digests.append(digest)
                if reason:
                    broken.add(i, reason)
        if not broken:
            return self, preprocessing.scaled(pixels), digests
        good = np.array([i for i in range(len(self)) if i not in broken], np.int64)
        if len(good) == 0:
            raise ValueError(f"{self.name}: no image can be read: {broken.reasons[0]}")
        reasons = {self.ids[i]: reason for i, reason in broken.reasons.items()}
        kept = replace(self.subset(good), broken=self.broken | reasons)
        return kept, preprocessing.scaled(pixels[good]), [digests[i] for i in good]

    def _read_all(
        self, pixels: NDArray[np.uint8], preprocessing: Preprocessing
    ) -> Iterator[tuple[str, str]]:
        """Fill `pixels`; gives (digest, "") or ("", reason) in order."""

        def read(i: int) -> tuple[str, str]:
            try:
                data = read_bytes(self.images[i])
                preprocessing.decoded(data, printable(self.images[i]), pixels[i])
                return _digest(data), ""
            except (ValueError, OSError) as error:
                return "", str(error)

        pool = ThreadPoolExecutor(_core.num_threads())
        try:
            yield from pool.map(read, range(len(self)))
        finally:
            pool.shutdown(cancel_futures=True)

    def aligned_to(self, class_names: Sequence[str]) -> Source:
        """This source with its labels counted in a model's `class_names`: classes are matched by
        name.

        Raises ValueError that names both sides when a class here is unknown to the model, or when a
        folder that the model's classes ask for is missing.
        """
        lenient = isinstance(self.images, np.ndarray)
        position = class_positions(self.name, self.class_names, class_names, lenient)
        task = replace(
            self.tasks[0],
            class_names=list(class_names),
            labels=np.where(self.labels < 0, -1, position[self.labels]),
        )
        return replace(self, tasks=[task, *self.tasks[1:]])


def class_positions(
    owner: str, here: Sequence[str], model: Sequence[str], may_lack: bool = False
) -> NDArray[np.int64]:
    """For each class of `here` its index among the `model`'s classes, matched by name.

    Raises ValueError that names what is unknown or (unless it may lack some) missing.
    """
    unknown = [name for name in here if name not in model]
    missing = [name for name in model if name not in here]
    if unknown or (missing and not may_lack):
        said = f"unknown to it: {some(unknown)}" if unknown else ""
        lack = f"missing here: {some(missing)}" if missing else ""
        raise ValueError(
            f"{owner}: classes do not match the model's {len(model)} classes "
            f"({some(model)}); {'; '.join(filter(None, (said, lack)))}"
        )
    return np.array([list(model).index(name) for name in here], np.int64)


def natural(name: str) -> tuple[int, int, str]:
    """Sort key: whole numbers by value, before other names."""
    return (0, int(name), name) if name.isascii() and name.isdigit() else (1, 0, name)


def part_texts(parts: list[str]) -> NDArray[np.str_]:
    """The array of parts that a Source takes."""
    return np.array(parts, dtype="<U5")


def some(names: Any) -> str:
    """The first names of a list, for messages."""
    names = [str(name) for name in names]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def read_bytes(path: str) -> bytes:
    """The content of a file. OSError that names it in one line."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise type(error)(f"{printable(path)}: cannot be read: {error.strerror}") from None


def _header_or_reason(path: str) -> Any:
    try:
        return read_header(path)
    except (ValueError, OSError) as error:
        return str(error)


def _digest(data: Any) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def check_memory(count: int, preprocessing: Preprocessing) -> None:
    """ValueError unless that many model inputs fit into the free memory."""
    height, width, channels = preprocessing.input_shape
    item = 1 if preprocessing.scale == 1.0 else 4
    needed, free = count * height * width * channels * item, _available_memory()
    if free is not None and needed > free:
        raise ValueError(
            f"{count} images of {height}x{width}x{channels} need {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free: choose a smaller image size"
        )


def _available_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None
