"""Training and measuring a job's model, with everything kept in its run folder."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Any

import numpy as np

from convlet import __version__, applications, optimizers
from convlet.callbacks import Callback
from convlet.cli.job import Job
from convlet.cli.run_folder import RunFolder
from convlet.data import BalancedSampler, balanced_weights
from convlet.models import load_model
from convlet.optimizers import schedules
from convlet.utils import set_random_seed

VALIDATION_BATCH = 256
SHOWN = 8  # images on the sheet that shows the augmentation
OPTIMIZERS = {
    "adam": optimizers.Adam,
    "adamw": optimizers.AdamW,
    "rmsprop": optimizers.RMSprop,
    "sgd": partial(optimizers.SGD, momentum=0.9),
}


def new_model(job: Job) -> Any:
    settings = job.settings
    set_random_seed(settings.seed)
    network = getattr(applications, settings.model)
    try:
        model = job.objective.model(network, job.preprocessing.input_shape, job.source)
    except ValueError as error:
        raise ValueError(f"--model {settings.model}: {error}") from None
    warmup = settings.warmup * job.steps_per_epoch
    rate = schedules.CosineDecay(
        0.0,
        settings.epochs * job.steps_per_epoch - warmup,
        warmup_target=settings.lr,
        warmup_steps=warmup,
    )
    model.compile(
        optimizer=OPTIMIZERS[settings.optimizer](rate),
        device=settings.device,
        precision=settings.precision,
        **job.objective.criteria(settings.label_smoothing),
    )
    model.class_names = job.objective.class_names(job.source)
    model.preprocessing = job.preprocessing
    return model


def new_folder(out: str | None, job: Job) -> RunFolder:
    folder = RunFolder.create(out, job.source.name)
    folder.write_split(job.samples)
    _show_augmentation(job, folder)
    folder.write_config(
        job.settings,
        convlet=__version__,
        data=job.data,
        objective=job.objective.name,
        class_names=job.objective.class_names(job.source),
        preprocessing=job.preprocessing.to_config(),
        augmentation=job.augmentation.to_config(),
    )
    return folder


def _show_augmentation(job: Job, folder: RunFolder) -> None:
    """augmentation.png: an image of each of the first classes, and what becomes of it."""
    trained = np.flatnonzero(job.parts == "train")
    _, first = np.unique(job.objective.strata(job.source)[trained], return_index=True)
    rows = trained[first[:SHOWN]]
    titles = [job.samples[row].label for row in rows]
    job.augmentation.contact_sheet(
        job.x[rows], folder.augmentation_file, seed=job.settings.seed, titles=titles
    )


def train_epochs(model: Any, job: Job, folder: RunFolder) -> None:
    """Train the epochs that are still to do."""
    settings = job.settings
    done = model.optimizer.iterations // job.steps_per_epoch
    record = _Record(job, folder, folder.read_metrics()[:done])
    x, y = job.part("train")
    sampler = BalancedSampler(y, settings.seed) if settings.balance == "sample" else None
    weights = None
    if settings.balance == "weight":
        weights = balanced_weights(y, len(job.source.class_names))
    batches = job.augmentation.flow(
        x, y, settings.batch_size, seed=settings.seed, epoch=done, sampler=sampler
    )
    try:
        model.fit(
            batches,
            epochs=settings.epochs,
            initial_epoch=done,
            validation_data=job.part("val") if job.count("val") else None,
            validation_batch_size=VALIDATION_BATCH,
            class_weight=weights,
            callbacks=[record],
        )
    except KeyboardInterrupt:
        again = shlex.join(["convlet", "train", job.data, "--resume", "--out", str(folder.path)])
        raise KeyboardInterrupt(
            f"interrupted after epoch {len(record.rows)} of {settings.epochs}; go on with: {again}"
        ) from None


class _Record(Callback):
    """Writes metrics.csv, then the best, then the last model, after every epoch.

    The last model comes last: after an interruption in between, the epoch is repeated and writes
    the same files again.
    """

    def __init__(self, job: Job, folder: RunFolder, rows: list[dict[str, float]]) -> None:
        super().__init__()
        self.job, self.folder, self.rows = job, folder, rows

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        columns = self.job.objective.columns
        values = {name: float(value) for name, value in (logs or {}).items() if name in columns}
        rate = float(self.model.optimizer.learning_rate)
        self.rows.append({"epoch": epoch + 1, **values, "learning_rate": rate})
        self.folder.write_metrics(self.rows, columns)
        if _best_epoch(self.rows) == epoch + 1:
            if self.job.count("val"):
                validation = self.job.part("val")
                self.model.thresholds = self.job.objective.thresholds(self.model, *validation)
            self.model.save(self.folder.best)
        self.model.save(self.folder.last)


def _best_epoch(rows: list[dict[str, float]]) -> int:
    """The epoch with the smallest validation loss; the last one where nothing was validated."""
    if "val_loss" not in rows[-1]:
        return int(rows[-1]["epoch"])
    return int(min(rows, key=lambda row: row["val_loss"])["epoch"])


def result(job: Job, folder: RunFolder) -> list[str]:
    """What summary.txt says: the best epoch's model on images that had no part in making it."""
    lines: list[str] = []
    part, what = ("test", "held-out") if job.count("test") else ("val", "validation")
    if job.count(part):
        lines = job.objective.report(what, load_model(folder.best), *job.part(part))
        if part == "val":
            lines[0] += "; they chose the epoch: expect a little less on new ones"
    how = "chosen by the validation loss" if job.count("val") else "the last"
    epoch = _best_epoch(folder.read_metrics())
    lines.append(f"weights of epoch {epoch} of {job.settings.epochs}, {how}")
    lines.append(f"run folder: {folder.path}")
    return lines
