"""`convlet predict RUN IMAGE...`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from convlet.cli.loading import load, unseen
from convlet.cli.objective import objective_of
from convlet.data.folders import FolderIndex, printable
from convlet.data.sources import DATASETS

AT_ONCE = 256


def run(options: Namespace) -> None:
    """Print what the model says of every image: the class, its confidence and the five likeliest;
    the class for each task; or the labels that apply."""
    model, folder = load(options.run_folder)
    for name in options.images:
        if not Path(name).exists() and name in DATASETS:
            _predict_dataset(model, folder, name)
        else:
            _predict_files(model, name)


def _predict_dataset(model: Any, folder: Any, name: str) -> None:
    source = objective_of(model).aligned(name, model)
    source, _, digests = source.load(model.preprocessing)
    indices, _ = unseen(source, digests, folder)
    for chosen in _chunks(indices):
        part = source.subset(chosen)
        labels = [model.class_names[label] for label in part.labels]
        _print(model, list(part.images), part.ids, labels)


def _predict_files(model: Any, name: str) -> None:
    """A file that cannot be read is an error where it was named, else said and passed over."""
    if not Path(name).is_dir():
        _print(model, [name], [name])
        return
    with FolderIndex() as index:
        files = index.images(name).paths
    if not files:
        raise ValueError(f"{name}: holds no images")
    for chunk in _chunks(files):
        images, names = [], []
        for file in chunk:
            try:
                images.append(model.preprocessing.pixels(file))
                names.append(printable(file))
            except (ValueError, OSError) as error:
                print(f"{error}; skipped", file=sys.stderr)
        _print(model, images, names)


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]


def _print(model: Any, images: Any, names: Sequence[str], labels: Sequence[str] = ()) -> None:
    objective = objective_of(model)
    for i, (name, found) in enumerate(zip(names, model.classify(images), strict=True)):
        label = f"  (labelled {labels[i]})" if labels and labels[i] != found.name else ""
        print(f"{name}: {objective.answer(found)}{label}")
