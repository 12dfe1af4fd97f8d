"""`convlet train DATA --folds K`: K trainings, each with another share of the images held out."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from convlet.cli.job import Job, description, prepare, record
from convlet.cli.measure import accuracy_line, predicted_classes
from convlet.cli.objective import Objective
from convlet.cli.run_folder import RunFolder
from convlet.cli.training import new_folder, new_model, train_epochs
from convlet.data import Source, assign_parts
from convlet.data.folds import assign_folds
from convlet.models import load_model
from convlet.utils.files import write_whole


def run_folds(options: Namespace, source: Source, objective: Objective) -> None:
    """Train and measure each fold in a folder of its own; mean and spread go into summary.txt.

    Images that the source itself keeps for testing or validating take no part. Identical images are
    held out together.
    """
    if options.resume:
        raise ValueError("--resume: a training with --folds cannot be resumed")
    job = prepare(options, source, objective, None)
    for line in description(job):
        if not line.startswith("split: "):
            print(line)
    jobs = list(_jobs(job, options.folds))
    whole = RunFolder.create(options.out, source.name)
    print(f"run folder: {whole.path}")
    accuracies, lines = [], []
    for number, part in enumerate(jobs, 1):
        print(f"fold {number} of {len(jobs)}: {part.count('train')} to train", flush=True)
        folder = new_folder(str(whole.path / f"fold-{number}"), part)
        train_epochs(new_model(part), part, folder)
        x, labels = part.part("test")
        predicted = predicted_classes(load_model(folder.best), x)
        accuracies.append(100 * float((labels == predicted).mean()))
        lines.append(f"fold {number}: {accuracy_line('held-out', labels, predicted)}")
        write_whole(folder.summary_file, lines[-1] + "\n")
        print(lines[-1])
    spread = np.std(accuracies, ddof=1)
    lines.append(
        f"held-out accuracy {np.mean(accuracies):.2f} % ± {spread:.2f} (mean and standard "
        f"deviation of {len(jobs)} folds)"
    )
    write_whole(whole.summary_file, "\n".join(lines) + "\n")
    print(f"{lines[-1]}\nrun folder: {whole.path}")


def _jobs(job: Job, folds: int) -> Iterator[Job]:
    free = np.flatnonzero(~np.isin(job.source.parts, ("val", "test")))
    digests = [sample.digest for sample in job.samples]
    try:
        held_in = np.full(len(job.parts), -1)
        held_in[free] = assign_folds(
            len(free),
            folds,
            job.source.labels[free],
            [digests[i] for i in free],
            job.settings.seed,
        )
    except ValueError as error:
        raise ValueError(f"--folds: {str(error).removeprefix('folds: ')}") from None
    for fold in range(folds):
        parts = np.full(len(job.parts), "left out")
        given = np.where(held_in[free] == fold, "test", "train")
        parts[free] = assign_parts(
            job.source.labels[free],
            given,
            [digests[i] for i in free],
            validation=job.settings.val_split,
            test=0.0,
            seed=job.settings.seed,
        )
        yield replace(job, parts=parts, samples=record(job.objective, job.source, parts, digests))
