"""What a run of `convlet train` does: its settings, its images, and the part of each."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import applications
from convlet.cli.augment import parse_augmentation
from convlet.cli.objective import Objective, SingleLabel
from convlet.cli.recipes import RECIPES
from convlet.cli.run_folder import RunFolder, Sample, Settings
from convlet.data import Augmentation, Preprocessing, Source, assign_parts
from convlet.data.sampling import imbalance
from convlet.devices import resolve_device
from convlet.models.engine import resolve_precision

TEST_SPLIT = 0.2
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
        _check_device(settings)
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


def _check_device(settings: Settings) -> None:
    """ValueError, before images are read, unless this machine has the device and the precision."""
    try:
        resolve_precision(settings.precision, resolve_device(settings.device))
    except ValueError as error:
        raise ValueError(
            f"--device {settings.device} --precision {settings.precision}: "
            f"{str(error).removeprefix('compile: ')}"
        ) from None


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
