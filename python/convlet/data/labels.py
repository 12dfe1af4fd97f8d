"""A CSV of images that may have several labels, or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convlet.data.source import Source, Task, natural, part_texts, some
from convlet.data.tables import check_column_names, csv_image, csv_table

ANSWERS = ["no", "yes"]
SEPARATOR = ";"
Rows = list[tuple[int, list[str]]]


def open_labels(data: str | os.PathLike[str], names: Sequence[str] | None = None) -> Source:
    """List images and, for each label, whether it applies: a Task per label with the classes "no"
    and "yes".

    data: a .csv of path,labels, where the second cell holds names separated by ";" (an empty one:
        no label applies); or of path and several columns, whose header names the labels, of 0 and 1
        (an empty cell: not known).
    names: the labels of a model, whose order is kept; columns it has and the file lacks are not
        known. None: those that the file names.

    Raises ValueError or FileNotFoundError with one line that says what is wrong with it.
    """
    path = Path(data)
    if not path.is_file() or path.suffix.lower() != ".csv":
        found = "" if path.is_file() else "; there is no such file"
        raise ValueError(f"{data}: expected a .csv of images and their labels{found}")
    header, rows = csv_table(path)
    if not rows:
        raise ValueError(f"{path}: holds no images")
    columns = len(header or rows[0][1])
    for line, row in rows:
        if len(row) != columns or columns < 2 or not row[0]:
            wanted = f"{columns} cells" if columns > 1 else "path,labels"
            raise ValueError(f"{path}, line {line}: expected {wanted}, got {','.join(row)!r}")
    images = [csv_image(path, line, row[0]) for line, row in rows]
    if columns == 2:
        tasks = _listed(path, rows, names)
    else:
        tasks = _marked(path, header, rows, names)
    ids = [row[0] for _, row in rows]
    return Source(path.stem, tasks, ids, part_texts([""] * len(ids)), images)


def _listed(path: Path, rows: Rows, names: Sequence[str] | None) -> list[Task]:
    """From cells of names."""
    cells = [{name.strip() for name in row[1].split(SEPARATOR) if name.strip()} for _, row in rows]
    found = sorted(set().union(*cells), key=natural)
    if names is None:
        if set(found) <= {"0", "1"}:
            what = f"only {some(found)}" if found else "none"
            raise ValueError(
                f"{path}: expected names of labels, separated by {SEPARATOR!r}, in the second "
                f"column; found {what}"
            )
        if len(found) < 2:
            raise ValueError(f"{path}: expected at least two labels, found {some(found)}")
    _check_known(path, found, names)
    return [
        Task(name, ANSWERS, np.array([name in cell for cell in cells], np.int64))
        for name in names or found
    ]


def _marked(
    path: Path, header: list[str] | None, rows: Rows, names: Sequence[str] | None
) -> list[Task]:
    """From columns of 0 and 1."""
    if header is None:
        raise ValueError(f"{path}: expected a first line path,label,label... that names the labels")
    found = header[1:]
    check_column_names(path, found)
    _check_known(path, found, names)
    meaning = {"0": 0, "1": 1, "": -1}
    for line, row in rows:
        for name, cell in zip(found, row[1:], strict=True):
            if cell not in meaning:
                raise ValueError(
                    f"{path}, line {line}: column {name}: expected 0, 1 or nothing, got {cell!r}"
                )
        if not any(row[1:]):
            raise ValueError(f"{path}, line {line}: no label of {row[0]} is known")
    marks = {
        name: np.array([meaning[row[i]] for _, row in rows], np.int64)
        for i, name in enumerate(found, 1)
    }
    unknown = np.full(len(rows), -1, np.int64)
    return [Task(name, ANSWERS, marks.get(name, unknown)) for name in names or found]


def _check_known(path: Path, found: Sequence[str], names: Sequence[str] | None) -> None:
    if names is not None and (unknown := [name for name in found if name not in names]):
        raise ValueError(
            f"{path}: labels do not match the model's {len(names)} labels ({some(names)}); "
            f"unknown to it: {some(unknown)}"
        )
