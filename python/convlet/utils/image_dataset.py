"""Keras' image_dataset_from_directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.data.dataset import ImageDataset
from convlet.data.folders import FolderIndex, printable
from convlet.data.preprocessing import Preprocessing
from convlet.data.sampling import imbalance
from convlet.data.split import stratified_split

OWNER = "image_dataset_from_directory"
SUBSETS = ("training", "validation", "both", None)
FORMATS = ("tf", "grain")


def image_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    batch_size: int = 32,
    image_size: tuple[int, int] = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    format: str = "tf",
    verbose: bool = True,
) -> Any:
    """Batches of the images in a folder, one folder per class.

    Args:
        directory: with a folder per class; with any images below it when labels are given or None.
        labels: "inferred" from the folders, a list of integers in the order of the sorted paths, or
            None.
        label_mode: "int" (int32 (n,)), "categorical" (one-hot), "binary" (float32 (n,1)), or None
            for batches x alone.
        class_names: the folders to use, in the order that the labels count them; None takes all,
            sorted.
        color_mode: "rgb" or "grayscale".
        image_size: (height, width) that images are resized to.
        shuffle: a new order each epoch; else the order of the paths.
        seed: of the order and the split.
        validation_split: share held out: seeded and stratified (Keras takes the last ones).
        subset: "training" or "validation" of the split, or "both" for a pair of data sets.
        interpolation: "bilinear", "nearest", "bicubic", "area" or "lanczos3"; antialiased when
            shrinking, which Keras' is not.
        follow_links: whether links to folders below the class folders are entered.
        crop_to_aspect_ratio: cut off what sticks out instead of stretching the image.
        pad_to_aspect_ratio: add black borders instead of stretching the image.
        data_format: "channels_last".
        format: "tf" or "grain", as Keras calls what it returns; here both give the same.
        verbose: print how many files and classes were found, and whether classes are uneven.

    Returns:
        An ImageDataset of uint8 batches: begin the model with Rescaling(1 / 255). It has
        class_names, file_paths, labels and preprocessing, and fit passes names and preprocessing
        on to the model.

    Raises:
        ValueError, OSError: that name the argument, or the folder and what is wrong with it.
    """
    _check(labels, label_mode, class_names, subset, validation_split)
    if data_format not in (None, "channels_last"):
        raise ValueError(f"{OWNER}: data_format: expected 'channels_last', got {data_format!r}")
    if format not in FORMATS:
        raise ValueError(f"{OWNER}: format: expected one of {FORMATS}, got {format!r}")
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError(f"{OWNER}: expected crop_to_aspect_ratio or pad_to_aspect_ratio, got both")
    resize = "crop" if crop_to_aspect_ratio else "pad" if pad_to_aspect_ratio else "stretch"
    try:
        preprocessing = Preprocessing(
            tuple(image_size), color_mode, resize, interpolation=interpolation
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{OWNER}: {error}") from None
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"{OWNER}: {printable(directory)}: no such folder")
    paths, found, names, skipped = _index(directory, labels, class_names, follow_links)
    if not paths:
        raise ValueError(f"{OWNER}: {printable(directory)}: holds no images")
    if verbose:
        classes = f" belonging to {len(names)} classes" if names else ""
        print(f"Found {len(paths)} files{classes}.")
        if skipped:
            print(f"{skipped} files that are no images are skipped.")
        if names and found is not None and (uneven := imbalance(found, names)):
            print(f"{uneven[0].upper()}{uneven[1:]}.")

    def dataset(rows: NDArray[np.int64], sampling: str | None) -> ImageDataset:
        return ImageDataset(
            [paths[i] for i in rows],
            None if found is None or label_mode is None else found[rows],
            preprocessing=preprocessing,
            class_names=names,
            batch_size=batch_size,
            label_mode=label_mode,
            sampling=sampling,
            seed=seed or 0,
            name=printable(directory),
        )

    order = "shuffle" if shuffle else None
    if subset is None:
        return dataset(np.arange(len(paths)), order)
    kinds = np.zeros(len(paths), np.int64) if found is None else found
    kept, held = stratified_split(kinds, float(validation_split or 0), seed or 0)
    if verbose:
        print(f"Using {len(kept)} files for training and {len(held)} for validation.")
    if len(held) == 0:
        raise ValueError(f"{OWNER}: validation_split: {validation_split} of {len(paths)} is none")
    if subset == "both":
        return dataset(kept, order), dataset(held, None)
    return dataset(kept if subset == "training" else held, order)


def _check(labels: Any, label_mode: Any, class_names: Any, subset: Any, split: Any) -> None:
    if isinstance(labels, str) and labels != "inferred":
        raise ValueError(f"{OWNER}: labels: expected 'inferred', a list or None, got {labels!r}")
    if labels is None and label_mode is not None:
        raise ValueError(f"{OWNER}: label_mode: expected None where labels is None")
    if not isinstance(labels, str) and class_names is not None:
        raise ValueError(f"{OWNER}: class_names: expected None unless labels='inferred'")
    if subset not in SUBSETS:
        raise ValueError(f"{OWNER}: subset: expected one of {SUBSETS}, got {subset!r}")
    number = isinstance(split, (int, float)) and not isinstance(split, bool) and 0 < split < 1
    if (split is not None and not number) or (split is None) != (subset is None):
        raise ValueError(
            f"{OWNER}: validation_split: expected a share between 0 and 1 together with a subset, "
            f"got {split!r} and subset={subset!r}"
        )


def _index(
    directory: str | os.PathLike[str], labels: Any, class_names: Any, follow_links: bool
) -> tuple[list[str], NDArray[np.int64] | None, list[str] | None, int]:
    """(paths, labels, class names, number of files skipped)."""
    with FolderIndex(follow_links) as index:
        if not isinstance(labels, str):
            listing = index.images(directory)
            if labels is None:
                return listing.paths, None, None, len(listing.skipped)
            found = _given_labels(labels, len(listing.paths))
            names = [str(label) for label in range(int(found.max()) + 1)] if len(found) else []
            return listing.paths, found, names, len(listing.skipped)
        folders = index.subfolders(directory)
        names = folders if class_names is None else [str(name) for name in class_names]
        if not names or len(set(names)) != len(names) or set(names) != set(folders):
            raise ValueError(
                f"{OWNER}: {printable(directory)}: expected "
                + (f"the folders of class_names {names}" if names else "one folder per class")
                + f", found {folders}"
            )
        paths, counts, skipped = [], [], 0
        for name in names:
            listing = index.images(os.path.join(directory, name), above=[directory])
            paths += listing.paths
            counts.append(len(listing.paths))
            skipped += len(listing.skipped)
    return paths, np.repeat(np.arange(len(names)), counts), [printable(n) for n in names], skipped


def _given_labels(labels: Any, count: int) -> NDArray[np.int64]:
    found = np.asarray(labels)
    if found.shape != (count,) or found.dtype.kind not in "iu" or (count and found.min() < 0):
        raise ValueError(
            f"{OWNER}: labels: expected {count} integers from 0 on, one for each image file, got "
            f"{found.dtype} {found.shape}"
        )
    return found.astype(np.int64)
