"""What a network is to learn of each image: one class, a class for each of several tasks, or which
of several labels apply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import applications, losses, metrics
from convlet.cli.measure import BATCH, accuracy_line, details, label_lines, predicted_classes
from convlet.cli.run_folder import METRICS
from convlet.data import Source, Task, open_source
from convlet.data.labels import SEPARATOR, open_labels
from convlet.data.source import class_positions, some
from convlet.models import Model
from convlet.models.classify import is_multi_label

Rows = NDArray[Any]
Network = Callable[..., Model]
PIXEL_SCALE = 1 / 255  # sources give pixels 0..255, networks want 0..1
LISTED = 12  # classes in the description of a run
MISSING = -1


class Objective(ABC):
    """Answers what depends on how images are labelled.

    name: in config.json. columns: of metrics.csv.
    """

    name: str
    columns: tuple[str, ...] = METRICS

    @abstractmethod
    def aligned(self, data: str, model: Model) -> Source:
        """The images of `data`, with labels counted as the model counts them. ValueError when they
        do not match."""

    @abstractmethod
    def strata(self, source: Source) -> NDArray[np.int64]:
        """(N,) the classes that training, validation and held-out images get equal shares of."""

    @abstractmethod
    def check(self, source: Source, parts: NDArray[np.str_]) -> None:
        """ValueError when there is too little to learn from."""

    @abstractmethod
    def texts(self, source: Source) -> list[str]:
        """(N,) the label of each image, as split.csv has it."""

    @abstractmethod
    def class_names(self, source: Source) -> Any:
        """As the model carries them."""

    @abstractmethod
    def description(self, source: Source) -> list[str]:
        """Lines that say what there is to learn."""

    @abstractmethod
    def model(self, network: Network, input_shape: tuple[int, int, int], source: Source) -> Model:
        """A new model, not compiled."""

    @abstractmethod
    def criteria(self, label_smoothing: float) -> dict[str, Any]:
        """Loss and metrics, as compile takes them."""

    @abstractmethod
    def targets(self, source: Source, rows: Rows) -> Any:
        """What the loss compares the outputs for these rows with."""

    @abstractmethod
    def report(self, what: str, model: Model, x: NDArray[Any], targets: Any) -> list[str]:
        """Lines that say how well the model does on images, the most important first."""

    @abstractmethod
    def answer(self, prediction: Any) -> str:
        """What `classify` says of an image, in words."""

    def thresholds(self, model: Model, x: NDArray[Any], targets: Any) -> Any:
        """For the labels of a model, chosen on validation images; None where it has none."""
        return None


class SingleLabel(Objective):
    """One class per image."""

    name = "single_label"

    def aligned(self, data: str, model: Model) -> Source:
        source = open_source(data)
        _check_tasks(source, ["label"])
        return source.aligned_to(model.class_names)

    def strata(self, source: Source) -> NDArray[np.int64]:
        return source.labels

    def check(self, source: Source, parts: NDArray[np.str_]) -> None:
        names = source.class_names
        if len(names) < 2:
            found = ", ".join(names)
            raise ValueError(f"{source.name}: expected at least two classes, found {found}")
        counts = np.bincount(source.labels, minlength=len(names))
        trained = np.bincount(source.labels[parts == "train"], minlength=len(names))
        for name, count, train in zip(names, counts, trained, strict=True):
            if count < 2 or train < 1:
                raise ValueError(
                    f"{source.name}: the class {name} has {count} images, {train} of them to train "
                    "on; a class needs at least one to train on and one to hold out"
                )

    def texts(self, source: Source) -> list[str]:
        return [source.class_names[label] for label in source.labels]

    def class_names(self, source: Source) -> list[str]:
        return list(source.class_names)

    def description(self, source: Source) -> list[str]:
        return [f"{len(source.class_names)} classes: {_listed(source.class_names)}"]

    def model(self, network: Network, input_shape: tuple[int, int, int], source: Source) -> Model:
        return network(input_shape, len(source.class_names), scale=PIXEL_SCALE)

    def criteria(self, label_smoothing: float) -> dict[str, Any]:
        loss = losses.SparseCategoricalCrossentropy(label_smoothing=label_smoothing)
        return {"loss": loss, "metrics": ["accuracy"]}

    def targets(self, source: Source, rows: Rows) -> NDArray[np.int64]:
        return source.labels[rows]

    def report(self, what: str, model: Model, x: NDArray[Any], targets: Any) -> list[str]:
        predicted = predicted_classes(model, x)
        return [
            accuracy_line(what, targets, predicted),
            *details(targets, predicted, model.class_names),
        ]

    def answer(self, prediction: Any) -> str:
        top = ", ".join(f"{name} {100 * p:.1f} %" for name, p in prediction.top5)
        return f"{prediction.name}  {100 * prediction.confidence:.1f} %  [{top}]"


class MultiTask(Objective):
    """A class for each of several tasks: columns of a CSV. Labels may be missing.

    tasks: their names. ValueError when figures of the epochs would have the same name.
    """

    name = "multi_task"

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = list(tasks)
        keys = ["loss"]
        keys += [f"{task}_{key}" for key in ("loss", "accuracy") for task in tasks]
        self.columns = ("epoch", *keys, *(f"val_{key}" for key in keys), "learning_rate")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(
                f"label columns {', '.join(tasks)}: val_ before a name stands for validation; "
                "choose other names"
            )

    def aligned(self, data: str, model: Model) -> Source:
        source = open_source(data)
        _check_tasks(source, self.tasks)
        by_name = {task.name: task for task in source.tasks}
        tasks = [
            _aligned(source.name, by_name[name], model.class_names[name]) for name in self.tasks
        ]
        return replace(source, tasks=tasks)

    def strata(self, source: Source) -> NDArray[np.int64]:
        """The classes of the first task that has all its labels, else of the first."""
        whole = [task for task in source.tasks if (task.labels != MISSING).all()]
        return (whole or source.tasks)[0].labels

    def check(self, source: Source, parts: NDArray[np.str_]) -> None:
        for task in source.tasks:
            names = task.class_names
            if len(names) < 2:
                raise ValueError(
                    f"{source.name}: column {task.name}: expected at least two classes, found "
                    f"{', '.join(names) or 'none'}"
                )
            trained = task.labels[parts == "train"]
            counts = np.bincount(trained[trained != MISSING], minlength=len(names))
            if not counts.all():
                raise ValueError(
                    f"{source.name}: column {task.name}: none of the images to train on is "
                    f"{names[counts.argmin()]}; each class needs some"
                )

    def texts(self, source: Source) -> list[str]:
        columns = [
            ["" if label == MISSING else task.class_names[label] for label in task.labels]
            for task in source.tasks
        ]
        return [SEPARATOR.join(row) for row in zip(*columns, strict=True)]

    def class_names(self, source: Source) -> dict[str, list[str]]:
        return {task.name: list(task.class_names) for task in source.tasks}

    def description(self, source: Source) -> list[str]:
        lines = []
        for task in source.tasks:
            missing = int((task.labels == MISSING).sum())
            classes = f"{len(task.class_names)} classes: {_listed(task.class_names)}"
            lacking = f" ({missing} images without)" if missing else ""
            lines.append(f"{task.name}: {classes}{lacking}")
        return lines

    def model(self, network: Network, input_shape: tuple[int, int, int], source: Source) -> Model:
        classes = {task.name: len(task.class_names) for task in source.tasks}
        return applications.multi_task(network, input_shape, classes, scale=PIXEL_SCALE)

    def criteria(self, label_smoothing: float) -> dict[str, Any]:
        loss = losses.SparseCategoricalCrossentropy(
            ignore_class=MISSING, label_smoothing=label_smoothing
        )
        return {
            "loss": dict.fromkeys(self.tasks, loss),
            "metrics": {task: ["accuracy"] for task in self.tasks},
        }

    def targets(self, source: Source, rows: Rows) -> dict[str, NDArray[np.int64]]:
        return {task.name: task.labels[rows] for task in source.tasks}

    def report(self, what: str, model: Model, x: NDArray[Any], targets: Any) -> list[str]:
        outputs = model.predict(x, batch_size=BATCH, verbose=0)
        lines, tables = [], []
        for task in self.tasks:
            known = targets[task] != MISSING
            if not known.any():
                lines.append(f"{what} accuracy of {task}: none of {len(x)} images is labelled")
                continue
            labels, predicted = targets[task][known], outputs[task][known].argmax(axis=-1)
            missing = f", {(~known).sum()} not labelled" if not known.all() else ""
            line = accuracy_line(f"{what} {task}", labels, predicted)
            lines.append(line.removesuffix(")") + missing + ")")
            tables += [f"{task}:", *details(labels, predicted, model.class_names[task])]
        return lines + tables

    def answer(self, prediction: Any) -> str:
        return ", ".join(
            f"{task} {best.name}  {100 * best.confidence:.1f} %"
            for task, best in prediction.items()
        )


class MultiLabel(Objective):
    """Any number of labels per image, each of which applies, does not, or is not known. The tasks
    of the source are the labels."""

    name = "multi_label"

    def aligned(self, data: str, model: Model) -> Source:
        return open_labels(data, model.class_names)

    def strata(self, source: Source) -> NDArray[np.int64]:
        """Of the labels of an image the one that the fewest images have."""
        applies = np.stack([task.labels == 1 for task in source.tasks], axis=1)
        counts = applies.sum(axis=0)
        rarest = np.where(applies, counts, len(source) + 1).argmin(axis=1)
        return np.where(applies.any(axis=1), rarest, len(source.tasks))

    def check(self, source: Source, parts: NDArray[np.str_]) -> None:
        if len(source.tasks) < 2:
            raise ValueError(f"{source.name}: expected at least two labels")
        for task in source.tasks:
            trained = task.labels[parts == "train"]
            yes, no = int((trained == 1).sum()), int((trained == 0).sum())
            if not yes or not no:
                raise ValueError(
                    f"{source.name}: of the images to train on, {yes} have the label {task.name} "
                    f"and {no} do not; each label needs images with it and without it"
                )

    def texts(self, source: Source) -> list[str]:
        """Names of the labels; "?name" where it is not known whether it applies."""
        marks = {1: "", MISSING: "?"}
        return [
            SEPARATOR.join(
                marks[task.labels[i]] + task.name for task in source.tasks if task.labels[i] != 0
            )
            for i in range(len(source))
        ]

    def class_names(self, source: Source) -> list[str]:
        return [task.name for task in source.tasks]

    def description(self, source: Source) -> list[str]:
        labels = np.stack([task.labels for task in source.tasks], axis=1)
        missing = int((labels == MISSING).sum())
        per_image = (labels == 1).sum() / len(source)
        lines = [
            f"{len(source.tasks)} labels: {_listed(self.class_names(source))}",
            f"{'at least ' if missing else ''}{per_image:.2f} labels per image; "
            f"{int((labels == 0).all(axis=1).sum())} images have none",
        ]
        if missing:
            lines.append(f"{missing} of {labels.size} answers are not known")
        return lines

    def model(self, network: Network, input_shape: tuple[int, int, int], source: Source) -> Model:
        labels = len(source.tasks)
        return network(input_shape, labels, scale=PIXEL_SCALE, classifier_activation="sigmoid")

    def criteria(self, label_smoothing: float) -> dict[str, Any]:
        loss = losses.BinaryCrossentropy(label_smoothing=label_smoothing, mask_missing=True)
        return {"loss": loss, "metrics": ["accuracy"]}

    def targets(self, source: Source, rows: Rows) -> NDArray[np.float32]:
        labels = np.stack([task.labels[rows] for task in source.tasks], axis=1)
        return np.where(labels == MISSING, np.float32(np.nan), labels.astype(np.float32))

    def thresholds(self, model: Model, x: NDArray[Any], targets: Any) -> NDArray[np.float32]:
        """Those with the best F1."""
        probabilities = model.predict(x, batch_size=BATCH, verbose=0)
        return metrics.choose_thresholds(targets, probabilities)

    def report(self, what: str, model: Model, x: NDArray[Any], targets: Any) -> list[str]:
        probabilities = model.predict(x, batch_size=BATCH, verbose=0)
        thresholds = np.asarray(model.thresholds or [0.5] * targets.shape[1], np.float32)
        return label_lines(what, targets, probabilities, thresholds, model.class_names)

    def answer(self, prediction: Any) -> str:
        shown = prediction.names or [
            max(prediction.probabilities, key=prediction.probabilities.get)
        ]
        text = ", ".join(f"{name} {100 * prediction.probabilities[name]:.1f} %" for name in shown)
        return text if prediction.names else f"none  [likeliest: {text}]"


def objective_of(model: Model) -> Objective:
    """What a trained model has learned."""
    if isinstance(model.class_names, dict):
        return MultiTask(list(model.class_names))
    return MultiLabel() if is_multi_label(model) else SingleLabel()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def _check_tasks(source: Source, names: Sequence[str]) -> None:
    found = [task.name for task in source.tasks]
    if set(found) != set(names):
        raise ValueError(
            f"{source.name}: expected the label columns {some(names)}, found {some(found)}"
        )


def _aligned(owner: str, task: Task, names: Sequence[str]) -> Task:
    position = class_positions(f"{owner}: column {task.name}", task.class_names, names, True)
    labels = np.where(task.labels == MISSING, MISSING, np.append(position, MISSING)[task.labels])
    return Task(task.name, list(names), labels)
