"""Sources that are one file: a CSV of path,label[,label...], an .npz; and data sets by name."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.data.source import Source, Task, natural, part_texts, some


def from_csv(path: Path) -> Source:
    """See open_source."""
    header, rows = csv_table(path)
    columns = len(header or (rows[0][1] if rows else ("", "")))
    images, texts = [], []
    for line, row in rows:
        wanted = "path,label" if columns <= 2 else f"{columns} cells path,label,label..."
        if len(row) != max(columns, 2) or not row[0] or not any(row[1:]):
            raise ValueError(f"{path}, line {line}: expected {wanted}, got {','.join(row)!r}")
        images.append(csv_image(path, line, row[0]))
        texts.append(row[1:])
    names = header[1:] if header and columns > 2 else [f"label{i + 1}" for i in range(columns - 1)]
    if columns <= 2:
        names = ["label"]
    check_column_names(path, names)
    tasks = [_task(name, [row[i] for row in texts]) for i, name in enumerate(names)]
    ids = [row[0] for _, row in rows]
    return Source(path.stem, tasks, ids, part_texts([""] * len(ids)), images)


def csv_table(path: Path) -> tuple[list[str] | None, list[tuple[int, list[str]]]]:
    """The header of a CSV (None without one) and its rows, each with its line number; cells without
    the spaces around them, empty lines left out."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = [
                (n, [cell.strip() for cell in row])
                for n, row in enumerate(csv.reader(file), 1)
                if any(cell.strip() for cell in row)
            ]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: cannot be read as a CSV in UTF-8: {error}") from None
    if rows and not _beside(path, rows[0][1][0]).is_file() and "." not in rows[0][1][0]:
        return rows[0][1], rows[1:]
    return None, rows


def csv_image(path: Path, line: int, name: str) -> str:
    """The image that a line of a CSV names. FileNotFoundError when it is not there."""
    image = _beside(path, name)
    if not image.is_file():
        raise FileNotFoundError(f"{path}, line {line}: {image}: no such file")
    return str(image)


def check_column_names(path: Path, names: list[str]) -> None:
    """ValueError unless label columns have different names."""
    if len(set(names)) != len(names) or not all(names):
        raise ValueError(f"{path}: expected different names of the label columns, got {names}")


def _beside(csv_path: Path, name: str) -> Path:
    return csv_path.parent / name


def _task(name: str, texts: list[str]) -> Task:
    """Classes from the cells of a column. An empty cell is a missing label, -1."""
    class_names = sorted({text for text in texts if text}, key=natural)
    position = {text: i for i, text in enumerate(class_names)} | {"": -1}
    return Task(name, class_names, np.array([position[text] for text in texts], np.int64))


def from_npz(path: Path) -> Source:
    """See open_source."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # a zip file can be broken in many ways
        raise ValueError(f"{path}: cannot be read as an .npz: {error}") from error
    pairs = {"": "", "_train": "train", "_val": "val", "_test": "test"}
    found = [(f"x{s}", f"y{s}", part) for s, part in pairs.items() if f"x{s}" in arrays]
    if not found or any(y not in arrays for _, y, _ in found):
        raise ValueError(
            f"{path}: expected arrays x and y (or x_train, y_train, ...), found {some(arrays)}"
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
        task = _task("label", [str(name) for name in names])
    else:
        task = Task("label", *_listed_classes(listed, names, path))
    ids = [f"{path.name}[{i}]" for i in range(len(names))]
    return Source(path.stem, [task], ids, part_texts(parts), np.concatenate(images))


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
                f"class_names ({some(class_names)})"
            )
    return class_names, np.array(indices, np.int64)


def from_dataset(name: str) -> Source:
    """A data set of convlet.datasets."""
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
    task = Task("label", list(module.CLASS_NAMES), y.reshape(-1).astype(np.int64))
    ids = [f"{name}[{i}]" for i in range(len(x))]
    return Source(name, [task], ids, part_texts(parts), _pixels(x, name))


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
