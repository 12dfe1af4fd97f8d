"""A run folder: everything that a training run leaves behind, each file whole or not there."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convlet.utils.files import write_whole

FORMAT = 1
METRICS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


@dataclass(frozen=True)
class Settings:
    """What decides a run besides the data: the same settings give the same weights."""

    model: str = "small_cnn"
    epochs: int = 40
    batch_size: int = 32
    image_size: int | None = None
    lr: float | None = None
    optimizer: str = "adam"
    device: str = "auto"
    precision: str = "float32"
    seed: int = 0
    val_split: float = 0.1
    augment: str = "default"
    warmup: int = 0
    label_smoothing: float = 0.0
    balance: str = "none"


@dataclass(frozen=True)
class Sample:
    """One line of split.csv: what it is called, its class, its part, the digest of its content."""

    sample: str
    label: str
    part: str
    digest: str


class RunFolder:
    """The files of one run.

    config.json: settings, data, objective (what is learned of each image), class names,
    preprocessing, augmentation. split.csv: the part of every sample. augmentation.png: what
    training images become. metrics.csv: one line per epoch. last.safetensors: model and optimizer
    after the last finished epoch. best.safetensors: the model of the epoch that did best on the
    validation images. summary.txt: the result.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.split_file = path / "split.csv"
        self.augmentation_file = path / "augmentation.png"
        self.metrics_file = path / "metrics.csv"
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"
        self.summary_file = path / "summary.txt"

    @classmethod
    def create(cls, out: str | None, data_name: str) -> RunFolder:
        """A new, empty run folder: `out`, or the first free runs/<data>-<n>."""
        if out is not None:
            path = Path(out)
            if path.is_dir() and any(path.iterdir()):
                raise ValueError(f"{out}: is not empty; choose another --out, or add --resume")
            path.mkdir(parents=True, exist_ok=True)
            return cls(path)
        number = 1
        while True:
            path = Path("runs") / f"{data_name}-{number}"
            try:
                path.mkdir(parents=True)
                return cls(path)
            except FileExistsError:
                number += 1

    @classmethod
    def latest(cls, out: str | None, data_name: str) -> RunFolder:
        """The run in `out`, or the runs/<data>-<n> with the highest n."""
        if out is not None:
            run = cls(Path(out))
            if not run.config_file.is_file():
                raise ValueError(f"{out}: holds no run to resume (no config.json)")
            return run
        prefix, found = f"{data_name}-", []
        for config in Path("runs").glob("*/config.json"):
            number = config.parent.name.removeprefix(prefix)
            if config.parent.name.startswith(prefix) and number.isdigit():
                found.append((int(number), config.parent))
        if not found:
            raise ValueError(f"runs/{prefix}*: no run to resume; leave --resume out to start one")
        return cls(max(found)[1])

    def read_config(self) -> dict[str, Any]:
        """The content of config.json. ValueError when it is none of ours."""
        try:
            config = json.loads(self.config_file.read_text(encoding="utf-8"))
            if config["format"] != FORMAT:
                raise ValueError(f"format {config['format']}, this convlet reads {FORMAT}")
            config["settings"] = Settings(**config["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.config_file}: not a run's config: {error}") from error
        return config

    def write_config(self, settings: Settings, **rest: Any) -> None:
        """Write config.json."""
        config = {"format": FORMAT, **rest, "settings": asdict(settings)}
        write_whole(self.config_file, json.dumps(config, indent=2, ensure_ascii=False) + "\n")

    def read_split(self) -> list[Sample]:
        """The lines of split.csv."""
        try:
            with self.split_file.open(newline="", encoding="utf-8") as file:
                return [Sample(**row) for row in csv.DictReader(file)]
        except TypeError as error:
            raise ValueError(f"{self.split_file}: not a record of a split: {error}") from error

    def write_split(self, samples: list[Sample]) -> None:
        """Write split.csv."""
        rows = [asdict(sample) for sample in samples]
        write_whole(self.split_file, _csv(("sample", "label", "part", "digest"), rows))

    def read_metrics(self) -> list[dict[str, float]]:
        """The finished epochs, oldest first."""
        if not self.metrics_file.is_file():
            return []
        with self.metrics_file.open(newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
        return [{**row, "epoch": int(row["epoch"])} for row in rows]

    def write_metrics(
        self, rows: list[dict[str, float]], columns: tuple[str, ...] = METRICS
    ) -> None:
        """Write metrics.csv."""
        write_whole(self.metrics_file, _csv(columns, rows))


def _csv(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
