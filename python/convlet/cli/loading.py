"""Find the model that a command is to use, and the images it may be measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from convlet.cli.run_folder import RunFolder
from convlet.data import Source


def load(path: str) -> tuple[Any, RunFolder | None]:
    """The model of a run folder (its best epoch) or of a .safetensors file, and the folder.

    Raises FileNotFoundError or ValueError when there is none, or when it was saved without class
    names and preprocessing.
    """
    from convlet.models import load_model

    place = Path(path)
    run = RunFolder(place) if place.is_dir() else None
    if run is not None and not run.config_file.is_file():
        raise ValueError(f"{path}: is not a run folder (it has no config.json)")
    file = run.best if run is not None else place
    if not file.is_file():
        missing = "no epoch of it is finished" if run is not None else "no such run or model file"
        raise FileNotFoundError(f"{path}: {missing}")
    model = load_model(file)
    if not model.class_names or model.preprocessing is None:
        raise ValueError(
            f"{file}: was saved without class names and preprocessing; set model.class_names and "
            "model.preprocessing before model.save()"
        )
    return model, run


def unseen(source: Source, digests: list[str], run: RunFolder | None) -> tuple[Any, str]:
    """Which samples the run did not learn from, and what to call the accuracy on them.

    Images are recognised by their content. Those that chose the epoch count as seen, unless the run
    held nothing else out. Returns indices (N,) and "held-out" or "validation"; without a run folder
    nothing is known of the images, so all of them are taken.
    """
    if run is None:
        return np.arange(len(source)), "overall"
    record = run.read_split()
    held = {sample.part for sample in record if sample.part in ("val", "test")}
    what = "held-out" if "test" in held or "val" not in held else "validation"
    keep = ("test",) if what == "held-out" else ("val",)
    seen = {sample.digest for sample in record if sample.part not in keep}
    indices = np.array([i for i, digest in enumerate(digests) if digest not in seen], np.int64)
    if len(indices) == 0:
        raise ValueError(
            f"{source.name}: {run.path} learned from every one of these {len(source)} images; "
            "measure it on others"
        )
    if what == "validation" and not {s.digest for s in record if s.part == "val"} & set(digests):
        what = "held-out"
    return indices, what
