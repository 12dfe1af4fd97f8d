"""`convlet train DATA`."""

from __future__ import annotations

import shlex
from argparse import Namespace
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import __version__, applications, optimizers
from convlet.callbacks import Callback
from convlet.cli.augment import parse_augmentation
from convlet.cli.objective import MultiLabel, MultiTask, Objective, SingleLabel
from convlet.cli.recipes import RECIPES
from convlet.cli.run_folder import RunFolder, Sample, Settings, write_whole
from convlet.data import (
    Augmentation,
    BalancedSampler,
    Preprocessing,
    Source,
    assign_parts,
    balanced_weights,
    open_source,
)
from convlet.data.labels import open_labels
from convlet.data.sampling import imbalance
from convlet.data.sources import source_name
from convlet.models import load_model
from convlet.optimizers import schedules
from convlet.utils import set_random_seed

TEST_SPLIT = 0.2
VALIDATION_BATCH = 256
SHOWN = 8  # images on the sheet that shows the augmentation
OPTIMIZERS = {
    "adam": optimizers.Adam,
    "adamw": optimizers.AdamW,
    "rmsprop": optimizers.RMSprop,
    "sgd": partial(optimizers.SGD, momentum=0.9),
}
RATES = {"adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3, "sgd": 0.03}


@dataclass(frozen=True)
class Job:
    """What a run trains on: images x (N,H,W,C), their source, what to learn of them, and the part
    of each (N,)."""

    data: str
    source: Source
    objective: Objective
    settings: Settings
    preprocessing: Preprocessing
    augmentation: Augmentation
    x: NDArray[Any]
    parts: NDArray[np.str_]
    samples: list[Sample]

    def part(self, name: str) -> tuple[NDArray[Any], Any]:
        """Images and targets of "train", "val" or "test"."""
        chosen = self.parts == name
        return self.x[chosen], self.objective.targets(self.source, chosen)

    def count(self, part: str) -> int:
        """How many images a part has."""
        return int((self.parts == part).sum())

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return -(-self.count("train") // self.settings.batch_size)


def run(options: Namespace) -> None:
    """Train a model on DATA, keep everything in a run folder, measure it on held-out images."""
    if options.folds is not None:
        from convlet.cli.folds import run_folds

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


def prepare(
    options: Namespace, source: Source, objective: Objective, folder: RunFolder | None
) -> Job:
    """The job that the options ask for, or the one that `folder` began."""
    if folder is None:
        settings = Settings(**_given(options))
        settings = replace(settings, lr=settings.lr or RATES[settings.optimizer])
        if settings.warmup >= settings.epochs:
            raise ValueError(
                f"--warmup {settings.warmup}: expected less than the {settings.epochs} epochs"
            )
        preprocessing = _large_enough(source.default_preprocessing(settings.image_size), settings)
        augmentation = parse_augmentation(settings.augment, preprocessing.input_shape)
    else:
        config = folder.read_config()
        settings = _same_settings(options, config["settings"], folder)
        preprocessing = Preprocessing.from_config(config["preprocessing"])
        augmentation = Augmentation.from_config(config["augmentation"])
    if augmentation.saturation and preprocessing.input_shape[2] != 3:
        raise ValueError(f"--augment {settings.augment}: saturation needs images in colour")
    source, x, digests = source.load(preprocessing)
    parts = assign_parts(
        objective.strata(source),
        source.parts,
        digests,
        validation=settings.val_split,
        test=TEST_SPLIT,
        seed=settings.seed,
    )
    objective.check(source, parts)
    return Job(
        str(options.data),
        source,
        objective,
        settings,
        preprocessing,
        augmentation,
        x,
        parts,
        record(objective, source, parts, digests),
    )


def record(
    objective: Objective, source: Source, parts: NDArray[np.str_], digests: list[str]
) -> list[Sample]:
    """What split.csv says."""
    texts = objective.texts(source)
    return [
        Sample(name, text, str(part), digest)
        for name, text, part, digest in zip(source.ids, texts, parts, digests, strict=True)
    ]


def _large_enough(preprocessing: Preprocessing, settings: Settings) -> Preprocessing:
    """The same with the least size that the network takes, if images are smaller and the user has
    not asked for a size. ValueError when that is too small."""
    smallest = applications.SMALLEST.get(settings.model, 1)
    if min(preprocessing.size) >= smallest:
        return preprocessing
    what = f"{settings.model} takes images of at least {smallest}x{smallest}"
    if settings.image_size is not None:
        raise ValueError(f"--image-size {settings.image_size}: {what}")
    height, width = (max(side, smallest) for side in preprocessing.size)
    print(f"{what}: these are enlarged to {height}x{width}")
    return replace(preprocessing, size=(height, width))


def description(job: Job) -> list[str]:
    source = job.source
    height, width, channels = job.preprocessing.input_shape
    lines = [
        f"{source.name}: {len(source)} images as {height}x{width}x{channels}",
        *job.objective.description(source),
        f"split: {job.count('train')} to train, {job.count('val')} to choose the epoch, "
        f"{job.count('test')} held out",
        f"in training: {_changes(job.augmentation)}",
    ]
    if left_out := job.count("left out"):
        lines.append(f"{left_out} held-out images are left out: they are also trained on")
    uneven = None
    if isinstance(job.objective, SingleLabel):
        uneven = imbalance(source.labels[job.parts == "train"], source.class_names)
    if uneven:
        done = {"none": "; --balance evens them out", "weight": "; their losses are weighted"}
        lines.append(uneven + done.get(job.settings.balance, "; each is drawn equally often"))
    return lines + source.left_out()


def _changes(augmentation: Augmentation) -> str:
    changes = [f"{name} {value}" for name, value in augmentation.to_config().items()]
    if not changes:
        return "images stay as they are"
    return f"each image changes at random: {', '.join(changes)}"


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


def _given(options: Namespace) -> dict[str, Any]:
    """The settings that the user gave, by themselves or as a recipe."""
    given = {field.name: getattr(options, field.name) for field in fields(Settings)}
    recipe = RECIPES.get(options.recipe, {})
    return recipe | {name: value for name, value in given.items() if value is not None}


def _same_settings(options: Namespace, settings: Settings, folder: RunFolder) -> Settings:
    for name, value in _given(options).items():
        if value != asdict(settings)[name]:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag} {value}: {folder.path} was begun with {asdict(settings)[name]}; leave it "
                "out to go on, or start a new run"
            )
    return settings
