"""Where samples come from: class folders, a CSV of path,label, an .npz, or a data set by name."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.data.image import decode, is_image_path, read_header
from convlet.data.preprocessing import Preprocessing

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
PART_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
LARGEST_DEFAULT_SIZE = 128


@dataclass
class Source:
    """Labelled images that are listed but not yet loaded.

    name: short name, for run folders. class_names: one per class; labels index it. labels: (N,)
    int64.
    ids: (N,) what to call each sample in messages and records. parts: (N,) "train", "val" or "test"
    where the source itself fixes it, else "". skipped: files that are no images, left out.
    images: (N,) file paths, or uint8 pixels (N,H,W,C).
    """

    name: str
    class_names: list[str]
    labels: NDArray[np.int64]
    ids: list[str]
    parts: NDArray[np.str_]
    images: Sequence[Path] | NDArray[np.uint8]
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: NDArray[np.int64]) -> Source:
        """The samples at `indices`, with the same classes."""
        images = self.images
        chosen = images[indices] if isinstance(images, np.ndarray) else [images[i] for i in indices]
        ids = [self.ids[i] for i in indices]
        return Source(
            self.name, self.class_names, self.labels[indices], ids, self.parts[indices], chosen
        )

    def default_preprocessing(
        self, size: int | None = None, resize: str = "stretch"
    ) -> Preprocessing:
        """The Preprocessing that suits these images.

        size: height and width to use; None takes the images' own size if they all share one of at
        most 128 pixels, else 128x128. Grey only if every image is grey.
        """
        if isinstance(self.images, np.ndarray):
            shapes, color = {self.images.shape[1:3]}, self.images.shape[3] == 3
        else:
            with ThreadPoolExecutor(_workers()) as pool:
                headers = list(pool.map(read_header, self.images))
            shapes, color = {shape for shape, _ in headers}, any(color for _, color in headers)
        own = shapes.pop() if len(shapes) == 1 else (LARGEST_DEFAULT_SIZE + 1, 0)
        if size is None and max(own) > LARGEST_DEFAULT_SIZE:
            size = LARGEST_DEFAULT_SIZE
        return Preprocessing(
            size=(size, size) if size is not None else (int(own[0]), int(own[1])),
            color_mode="rgb" if color else "grayscale",
            resize=resize,
        )

    def load(self, preprocessing: Preprocessing) -> tuple[NDArray[Any], list[str]]:
        """Model inputs (N,H,W,C) and, per sample, a digest of its content (file bytes or pixels).

        Raises ValueError that names the file that cannot be decoded, or that the memory is too
        small.
        """
        _check_memory(len(self), preprocessing)
        if isinstance(self.images, np.ndarray):
            digests = [_digest(np.ascontiguousarray(image)) for image in self.images]
            same = self.images.shape[1:] == preprocessing.input_shape and preprocessing.scale == 1.0
            return (self.images if same else preprocessing.batch(self.images)), digests
        pixels = np.empty((len(self), *preprocessing.input_shape), dtype=np.uint8)

        def read(i: int) -> str:
            data = self.images[i].read_bytes()
            pixels[i] = preprocessing.from_pillow(decode(data, str(self.images[i])))
            return _digest(data)

        with ThreadPoolExecutor(_workers()) as pool:
            digests = list(pool.map(read, range(len(self))))
        return preprocessing.scaled(pixels), digests

    def aligned_to(self, class_names: Sequence[str]) -> Source:
        """This source with its labels counted in a model's `class_names`: classes are matched by
        name.

        Raises ValueError that names both sides when a class here is unknown to the model, or when a
        folder that the model's classes ask for is missing.
        """
        unknown = [name for name in self.class_names if name not in class_names]
        missing = [name for name in class_names if name not in self.class_names]
        if unknown or (missing and not isinstance(self.images, np.ndarray)):
            said = f"unknown to it: {', '.join(unknown)}" if unknown else ""
            lack = f"missing here: {', '.join(missing)}" if missing else ""
            raise ValueError(
                f"{self.name}: classes do not match the model's {len(class_names)} classes "
                f"({_some(class_names)}); {'; '.join(filter(None, (said, lack)))}"
            )
        position = np.array([list(class_names).index(name) for name in self.class_names], np.int64)
        return Source(
            self.name, list(class_names), position[self.labels], self.ids, self.parts, self.images
        )


def open_source(data: str | os.PathLike[str]) -> Source:
    """List the labelled images that `data` names.

    data: a folder of class folders (or of train/, val/ or validation/, test/ with class folders in
    each), a .csv of path,label (paths relative to the file; a header line is optional), an .npz
    with uint8 x (N,H,W[,C]) and y (N,) (or x_train, y_train, x_test, y_test, x_val, y_val;
    class_names is optional), or a data set's name.
    Raises ValueError or FileNotFoundError with one line that says what is wrong with it.
    """
    path = Path(data)
    if path.is_dir():
        source = _from_folder(path)
    elif path.is_file() and path.suffix.lower() == ".csv":
        source = _from_csv(path)
    elif path.is_file() and path.suffix.lower() == ".npz":
        source = _from_npz(path)
    elif str(data) in DATASETS:
        source = _from_dataset(str(data))
    elif path.is_file():
        raise ValueError(f"{data}: expected a folder, a .csv or an .npz of labelled images")
    else:
        raise FileNotFoundError(
            f"{data}: no such folder, .csv or .npz, nor a data set ({', '.join(DATASETS)})"
        )
    if len(source) == 0:
        raise ValueError(f"{data}: holds no images")
    return source


def _from_folder(root: Path) -> Source:
    folders = _subfolders(root)
    parts = {
        folder: PART_FOLDERS[folder.name.lower()]
        for folder in folders
        if folder.name.lower() in PART_FOLDERS and _subfolders(folder)
    }
    if "train" not in parts.values():
        parts = {root: ""}
    class_names = sorted({f.name for part in parts for f in _subfolders(part)}, key=_natural)
    if not class_names:
        raise ValueError(f"{root}: expected one folder of images per class, found no folders")
    images, labels, given, skipped = [], [], [], []
    for folder, part in parts.items():
        here = {f.name for f in _subfolders(folder)}
        if lacking := [name for name in class_names if name not in here]:
            raise ValueError(f"{folder}: lacks a folder for the class {_some(lacking)}")
        for label, name in enumerate(class_names):
            for path in sorted(p for p in (folder / name).rglob("*") if p.is_file()):
                if is_image_path(path):
                    images.append(path)
                    labels.append(label)
                    given.append(part)
                else:
                    skipped.append(str(path.relative_to(root)))
    ids = [path.relative_to(root).as_posix() for path in images]
    name = root.resolve().name
    return Source(
        name, class_names, np.array(labels, np.int64), ids, _texts(given), images, skipped
    )


def _from_csv(path: Path) -> Source:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [
            (n, row) for n, row in enumerate(csv.reader(file), 1) if any(c.strip() for c in row)
        ]
    if rows and not _resolved(path, rows[0][1][0]).is_file() and "." not in rows[0][1][0]:
        rows = rows[1:]  # a header
    images, names = [], []
    for line, row in rows:
        if len(row) != 2 or not row[1].strip():
            raise ValueError(f"{path}, line {line}: expected path,label, got {','.join(row)!r}")
        image = _resolved(path, row[0])
        if not image.is_file():
            raise FileNotFoundError(f"{path}, line {line}: {image}: no such file")
        images.append(image)
        names.append(row[1].strip())
    class_names, labels = _classes(names)
    ids = [row[0].strip() for _, row in rows]
    return Source(path.stem, class_names, labels, ids, _texts([""] * len(ids)), images)


def _from_npz(path: Path) -> Source:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # a zip file can be broken in many ways
        raise ValueError(f"{path}: cannot be read as an .npz: {error}") from error
    pairs = {"": "", "_train": "train", "_val": "val", "_test": "test"}
    found = [(f"x{s}", f"y{s}", part) for s, part in pairs.items() if f"x{s}" in arrays]
    if not found or any(y not in arrays for _, y, _ in found):
        raise ValueError(
            f"{path}: expected arrays x and y (or x_train, y_train, ...), found {_some(arrays)}"
        )
    images, names, parts = [], [], []
    for x, y, part in found:
        pixels, labels = _pixels(arrays[x], f"{path}: {x}"), arrays[y]
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if labels.shape != (len(pixels),) or labels.dtype.kind not in "uiUb":
            raise ValueError(
                f"{path}: expected {y} ({len(pixels)},) of integers or texts to match {x}, got "
                f"{labels.dtype} {labels.shape}"
            )
        images.append(pixels)
        names.extend(labels.tolist())
        parts.extend([part] * len(pixels))
    if len({pixels.shape[1:] for pixels in images}) > 1:
        raise ValueError(f"{path}: the images differ in shape: {[p.shape for p in images]}")
    listed = arrays.get("class_names")
    if listed is None:
        class_names, labels = _classes([str(name) for name in names])
    else:
        class_names, labels = _listed_classes(listed, names, path)
    ids = [f"{path.name}[{i}]" for i in range(len(names))]
    return Source(path.stem, class_names, labels, ids, _texts(parts), np.concatenate(images))


def _from_dataset(name: str) -> Source:
    import importlib

    module = importlib.import_module(f"convlet.datasets.{name}")
    if name == "digits":
        # No test images are published: whoever trains draws the split. Values 0..16 are spread to
        # 0..255, so that image files of digits look the same to the model.
        x, y = module.load_all()
        x, parts = module.to_pixels(x), [""] * len(y)
    else:
        (x_train, y_train), (x_test, y_test) = module.load_data()
        x, y = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
        parts = ["train"] * len(y_train) + ["test"] * len(y_test)
    ids = [f"{name}[{i}]" for i in range(len(x))]
    labels = y.reshape(-1).astype(np.int64)
    return Source(name, list(module.CLASS_NAMES), labels, ids, _texts(parts), _pixels(x, name))


def _pixels(x: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[3] not in (1, 3) or 0 in x.shape[1:]:
        raise ValueError(f"{name}: expected images (N,H,W), (N,H,W,1) or (N,H,W,3), got {x.shape}")
    if x.dtype != np.uint8:
        raise ValueError(
            f"{name}: expected uint8 pixels 0..255, got {x.dtype}; image files hold that "
            "range, and the model is to read both"
        )
    return x


def _classes(names: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    class_names = sorted(set(names), key=_natural)
    position = {name: i for i, name in enumerate(class_names)}
    return class_names, np.array([position[name] for name in names], np.int64)


def _listed_classes(
    listed: NDArray[Any], labels: list[Any], path: Path
) -> tuple[list[str], NDArray[np.int64]]:
    class_names = [str(name) for name in listed.reshape(-1)]
    if len(set(class_names)) != len(class_names):
        raise ValueError(f"{path}: class_names holds a name twice")
    position = {name: i for i, name in enumerate(class_names)}
    indices = [position.get(v, -1) if isinstance(v, str) else int(v) for v in labels]
    for i, index in enumerate(indices):
        if not 0 <= index < len(class_names):
            raise ValueError(
                f"{path}: label {labels[i]!r} of image {i} is not one of the {len(class_names)} "
                f"class_names ({_some(class_names)})"
            )
    return class_names, np.array(indices, np.int64)


def _natural(name: str) -> tuple[int, int, str]:
    """Sort key: whole numbers by value, before other names."""
    return (0, int(name), name) if name.isascii() and name.isdigit() else (1, 0, name)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _resolved(csv_path: Path, name: str) -> Path:
    return csv_path.parent / name.strip()


def _texts(parts: list[str]) -> NDArray[np.str_]:
    return np.array(parts, dtype="<U5")


def _digest(data: Any) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _some(names: Any) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_memory(count: int, preprocessing: Preprocessing) -> None:
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
