"""Where labelled images come from: class folders, a CSV of path,label, an .npz, or a data set by
name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from convlet.data.folders import FolderIndex, printable
from convlet.data.source import Source, Task, natural, part_texts, some
from convlet.data.tables import from_csv, from_dataset, from_npz

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
PART_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


def open_source(data: str | os.PathLike[str]) -> Source:
    """List the labelled images that `data` names.

    data: a folder of class folders (or of train/, val/ or validation/, test/ with class folders in
    each); a .csv of path,label[,label...] (paths relative to the file; a header line is optional
    and names the label columns; with several of them an empty cell is a missing label); an .npz
    with uint8 x (N,H,W[,C]) and y (N,) (or x_train, y_train, x_test, y_test, x_val, y_val;
    class_names is optional); or a data set's name.
    Raises ValueError or FileNotFoundError with one line that says what is wrong with it.
    """
    path = Path(data)
    if path.is_dir():
        source = _from_folder(path)
    elif path.is_file() and path.suffix.lower() == ".csv":
        source = from_csv(path)
    elif path.is_file() and path.suffix.lower() == ".npz":
        source = from_npz(path)
    elif str(data) in DATASETS:
        source = from_dataset(str(data))
    elif path.is_file():
        raise ValueError(f"{data}: expected a folder, a .csv or an .npz of labelled images")
    else:
        raise FileNotFoundError(
            f"{data}: no such folder, .csv or .npz, nor a data set ({', '.join(DATASETS)})"
        )
    if len(source) == 0:
        raise ValueError(f"{data}: holds no images")
    return source


def source_name(data: str | os.PathLike[str]) -> str:
    """The name of the Source that `data` opens."""
    path = Path(data)
    return path.resolve().name if path.is_dir() else path.stem


def _from_folder(root: Path) -> Source:
    with FolderIndex() as index:
        parts = {
            root / name: PART_FOLDERS[name.lower()]
            for name in index.subfolders(root)
            if name.lower() in PART_FOLDERS and index.subfolders(root / name)
        }
        if "train" not in parts.values():
            parts = {root: ""}
        classes = {folder: index.subfolders(folder) for folder in parts}
        class_names = sorted({name for names in classes.values() for name in names}, key=natural)
        if not class_names:
            raise ValueError(f"{root}: expected one folder of images per class, found no folders")
        images, labels, given, skipped = [], [], [], {}
        for folder, part in parts.items():
            if lacking := [name for name in class_names if name not in classes[folder]]:
                raise ValueError(f"{folder}: lacks a folder for the class {some(lacking)}")
            for label, name in enumerate(class_names):
                listing = index.images(folder / name, above=[root])
                images += listing.paths
                labels += [label] * len(listing.paths)
                given += [part] * len(listing.paths)
                skipped |= listing.skipped
    strip = len(str(root)) + 1 if str(root) != "." else 0
    ids = [printable(path[strip:]) for path in images]
    left_out = {printable(path[strip:]): reason for path, reason in skipped.items()}
    task = Task("label", [printable(name) for name in class_names], np.array(labels, np.int64))
    return Source(source_name(root), [task], ids, part_texts(given), images, left_out)
