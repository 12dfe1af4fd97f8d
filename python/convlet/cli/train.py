"""`convlet train DATA`."""

from __future__ import annotations

from argparse import Namespace

from convlet.cli.folds import run_folds
from convlet.cli.job import description, prepare
from convlet.cli.objective import MultiLabel, MultiTask, Objective, SingleLabel
from convlet.cli.run_folder import RunFolder
from convlet.cli.training import new_folder, new_model, result, train_epochs
from convlet.data import Source, open_source
from convlet.data.labels import open_labels
from convlet.data.sources import source_name
from convlet.models import load_model
from convlet.utils.files import write_whole


def run(options: Namespace) -> None:
    """Train a model on DATA, keep everything in a run folder, measure it on held-out images."""
    if options.folds is not None:
        run_folds(options, *_open(options, None))
        return
    folder = RunFolder.latest(options.out, source_name(options.data)) if options.resume else None
    source, objective = _open(options, folder)
    job = prepare(options, source, objective, folder)
    print("\n".join(description(job)))
    if folder is not None and folder.read_split() != job.samples:
        raise ValueError(f"{job.data}: has changed since {folder.path} began; start a new run")
    if folder is not None and folder.last.is_file():
        settings = job.settings
        model = load_model(folder.last, device=settings.device, precision=settings.precision)
    else:
        model = new_model(job)
    if folder is None:
        folder = new_folder(options.out, job)
    print(f"run folder: {folder.path}")
    train_epochs(model, job, folder)
    lines = result(job, folder)
    write_whole(folder.summary_file, "\n".join(lines) + "\n")
    print("\n".join(lines))


def _open(options: Namespace, folder: RunFolder | None) -> tuple[Source, Objective]:
    """The labelled images, and what is to be learned of them. ValueError when `folder` was begun
    with something else, or for an option that this cannot have."""
    begun = None
    if folder is not None:
        begun = folder.read_config().get("objective", SingleLabel.name)
    objective: Objective
    if options.multi_label or begun == MultiLabel.name:
        source, objective = open_labels(options.data), MultiLabel()
    else:
        source = open_source(options.data)
        several = len(source.tasks) > 1
        objective = MultiTask([task.name for task in source.tasks]) if several else SingleLabel()
    kind = objective.name.replace("_", "-")
    if begun is not None and begun != objective.name:
        raise ValueError(
            f"{options.data}: {kind}, but {options.out or folder.path} was begun as "
            f"{begun.replace('_', '-')}; start a new run"
        )
    if objective.name != SingleLabel.name:
        for flag, given in (
            (f"--folds {options.folds}", options.folds is not None),
            (f"--balance {options.balance}", options.balance not in (None, "none")),
        ):
            if given:
                raise ValueError(f"{flag}: takes one label per image; {source.name} is {kind}")
    return source, objective
