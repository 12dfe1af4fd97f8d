"""`convlet train DATA`."""

from __future__ import annotations

import shlex
from argparse import Namespace
from dataclasses import asdict, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import __version__, applications, optimizers
from convlet.callbacks import Callback
from convlet.cli.measure import accuracy_line, details, predicted_classes
from convlet.cli.run_folder import METRICS, RunFolder, Sample, Settings, write_whole
from convlet.data import Preprocessing, ShiftedBatches, Source, assign_parts, open_source
from convlet.models import load_model
from convlet.optimizers import schedules
from convlet.utils import set_random_seed

TEST_SPLIT = 0.2
VALIDATION_BATCH = 256
PIXEL_SCALE = 1 / 255  # sources give pixels 0..255, networks want 0..1
OPTIMIZERS = {
    "adam": optimizers.Adam,
    "adamw": optimizers.AdamW,
    "rmsprop": optimizers.RMSprop,
    "sgd": partial(optimizers.SGD, momentum=0.9),
}
RATES = {"adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3, "sgd": 0.03}


def run(options: Namespace) -> None:
    """Train a model on DATA, keep everything in a run folder, measure it on held-out images."""
    source = open_source(options.data)
    if options.resume:
        folder = RunFolder.latest(options.out, source.name)
        config = folder.read_config()
        settings = _same_settings(options, config["settings"], folder)
        preprocessing = Preprocessing.from_config(config["preprocessing"])
    else:
        folder, settings = None, Settings(**_given(options))
        settings = replace(settings, lr=settings.lr or RATES[settings.optimizer])
        preprocessing = source.default_preprocessing(settings.image_size)
    x, digests = source.load(preprocessing)
    parts = assign_parts(
        source.labels,
        source.parts,
        digests,
        validation=settings.val_split,
        test=TEST_SPLIT,
        seed=settings.seed,
    )
    _check_classes(source, parts)
    for line in _description(source, x, parts):
        print(line)
    samples = [
        Sample(name, source.class_names[label], str(part), digest)
        for name, label, part, digest in zip(source.ids, source.labels, parts, digests, strict=True)
    ]
    if folder is not None and folder.read_split() != samples:
        raise ValueError(f"{options.data}: has changed since {folder.path} began; start a new run")
    if folder is not None and folder.last.is_file():
        model = load_model(folder.last)
    else:
        model = _new_model(source, preprocessing, settings, int((parts == "train").sum()))
    if folder is None:
        folder = RunFolder.create(options.out, source.name)
        folder.write_split(samples)
        folder.write_config(
            settings,
            convlet=__version__,
            data=str(options.data),
            class_names=source.class_names,
            preprocessing=preprocessing.to_config(),
        )
    print(f"run folder: {folder.path}")
    _fit(model, x, source.labels, parts, settings, folder, options.data)
    lines = _result(x, source, parts, settings, folder)
    write_whole(folder.summary_file, "\n".join(lines) + "\n")
    print("\n".join(lines))


def _check_classes(source: Source, parts: NDArray[np.str_]) -> None:
    names = source.class_names
    if len(names) < 2:
        raise ValueError(f"{source.name}: expected at least two classes, found {', '.join(names)}")
    counts = np.bincount(source.labels, minlength=len(names))
    trained = np.bincount(source.labels[parts == "train"], minlength=len(names))
    for name, count, train in zip(names, counts, trained, strict=True):
        if count < 2 or train < 1:
            raise ValueError(
                f"{source.name}: the class {name} has {count} images, {train} of them to train on; "
                "a class needs at least one to train on and one to hold out"
            )


def _description(source: Source, x: NDArray[Any], parts: NDArray[np.str_]) -> list[str]:
    _, height, width, channels = x.shape
    names = source.class_names
    reach = "1 pixel" if _reach(x) == 1 else f"{_reach(x)} pixels"
    train, val, test, left_out = (
        int((parts == part).sum()) for part in ("train", "val", "test", "left out")
    )
    lines = [
        f"{source.name}: {len(source)} images as {height}x{width}x{channels}",
        f"{len(names)} classes: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}",
        f"split: {train} to train, {val} to choose the epoch, {test} held out",
        f"in training each image is moved at random, by up to {reach}",
    ]
    if left_out:
        lines.append(f"{left_out} held-out images are left out: they are also trained on")
    if source.skipped:
        count = len(source.skipped)
        lines.append(f"{count} files that are no images are skipped: {source.skipped[0]}, ...")
    return lines


def _new_model(
    source: Source, preprocessing: Preprocessing, settings: Settings, train_count: int
) -> Any:
    set_random_seed(settings.seed)
    build = getattr(applications, settings.model)
    model = build(preprocessing.input_shape, len(source.class_names), scale=PIXEL_SCALE)
    steps = settings.epochs * -(-train_count // settings.batch_size)
    model.compile(
        optimizer=OPTIMIZERS[settings.optimizer](schedules.CosineDecay(settings.lr, steps)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        device=settings.device,
    )
    model.class_names = list(source.class_names)
    model.preprocessing = preprocessing
    return model


def _fit(
    model: Any,
    x: NDArray[Any],
    labels: NDArray[np.int64],
    parts: NDArray[np.str_],
    settings: Settings,
    folder: RunFolder,
    data: str,
) -> None:
    """Train the epochs that are still to do."""
    train, val = parts == "train", parts == "val"
    done = model.optimizer.iterations // -(-int(train.sum()) // settings.batch_size)
    record = _Record(folder, folder.read_metrics()[:done])
    batches = ShiftedBatches(
        x[train],
        labels[train],
        settings.batch_size,
        reach=_reach(x),
        seed=settings.seed,
        epoch=done,
    )
    try:
        model.fit(
            batches,
            epochs=settings.epochs,
            initial_epoch=done,
            validation_data=(x[val], labels[val]) if val.any() else None,
            validation_batch_size=VALIDATION_BATCH,
            callbacks=[record],
        )
    except KeyboardInterrupt:
        again = shlex.join(["convlet", "train", data, "--resume", "--out", str(folder.path)])
        raise KeyboardInterrupt(
            f"interrupted after epoch {len(record.rows)} of {settings.epochs}; go on with: {again}"
        ) from None


def _reach(x: NDArray[Any]) -> int:
    """How far training images are moved: up to an eighth of their side."""
    return max(1, min(x.shape[1:3]) // 8)


class _Record(Callback):
    """Writes metrics.csv, then the best, then the last model, after every epoch.

    The last model comes last: after an interruption in between, the epoch is repeated and writes
    the same files again.
    """

    def __init__(self, folder: RunFolder, rows: list[dict[str, float]]) -> None:
        super().__init__()
        self.folder, self.rows = folder, rows

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items() if name in METRICS}
        rate = float(self.model.optimizer.learning_rate)
        self.rows.append({"epoch": epoch + 1, **values, "learning_rate": rate})
        self.folder.write_metrics(self.rows)
        if _best_epoch(self.rows) == epoch + 1:
            self.model.save(self.folder.best)
        self.model.save(self.folder.last)


def _best_epoch(rows: list[dict[str, float]]) -> int:
    """The epoch with the smallest validation loss; the last one where nothing was validated."""
    if "val_loss" not in rows[-1]:
        return int(rows[-1]["epoch"])
    return int(min(rows, key=lambda row: row["val_loss"])["epoch"])


def _result(
    x: NDArray[Any], source: Source, parts: NDArray[np.str_], settings: Settings, folder: RunFolder
) -> list[str]:
    """What summary.txt says: the best epoch's model on images that had no part in making it."""
    model = load_model(folder.best)
    lines = []
    part, what = ("test", "held-out") if (parts == "test").any() else ("val", "validation")
    chosen = parts == part
    if chosen.any():
        labels, predicted = source.labels[chosen], predicted_classes(model, x[chosen])
        lines = [
            accuracy_line(what, labels, predicted),
            *details(labels, predicted, source.class_names),
        ]
        if part == "val":
            lines[0] += "; they chose the epoch: expect a little less on new ones"
    how = "chosen by the validation loss" if (parts == "val").any() else "the last"
    epoch = _best_epoch(folder.read_metrics())
    lines.append(f"weights of epoch {epoch} of {settings.epochs}, {how}")
    lines.append(f"run folder: {folder.path}")
    return lines


def _given(options: Namespace) -> dict[str, Any]:
    names = [field.name for field in fields(Settings)]
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _same_settings(options: Namespace, settings: Settings, folder: RunFolder) -> Settings:
    for name, value in _given(options).items():
        if value != asdict(settings)[name]:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag} {value}: {folder.path} was begun with {asdict(settings)[name]}; leave it "
                "out to go on, or start a new run"
            )
    return settings
