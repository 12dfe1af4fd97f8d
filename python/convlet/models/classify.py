"""From a model's outputs to names."""

from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlet import _core
from convlet.models.data import to_array
from convlet.models.naming import check_names
from convlet.models.network import UNKNOWN, final_activation
from convlet.models.structure import flatten

BINARY_KINDS = ("sigmoid_cross_entropy", "binary_cross_entropy")


class Prediction(NamedTuple):
    """What a model thinks of an image that belongs to one class.

    name: the likeliest class. confidence: its probability. top5: the five (or fewer) likeliest
    (name, probability), best first.
    """

    name: str
    confidence: float
    top5: list[tuple[str, float]]


class Labels(NamedTuple):
    """What a model thinks of an image that may have several labels, or none.

    names: the labels whose probability reaches their threshold, the likeliest first.
    probabilities: of every label.
    """

    names: list[str]
    probabilities: dict[str, float]


def classify(model: Any, images: Any, batch_size: int) -> list[Any]:
    """See Model.classify."""
    model.build_for(images, "classify")
    if model.class_names is None:
        raise ValueError(f"classify: {model.owner} has no class names: set model.class_names")
    check_names(model)
    several = isinstance(model.class_names, dict)
    if several != (len(model.outputs) > 1):
        raise ValueError(
            f"classify: {model.owner}: class_names: expected "
            + ("{output name: names} for the outputs " if not several else "a list for the output ")
            + f"{model.output_names}, got {model.class_names!r}"
        )
    results = flatten(model.predict(_inputs(model, images), batch_size=batch_size))[0]
    if not several:
        return _named(model, 0, model.class_names, results[0])
    columns = {
        name: _named(model, i, model.class_names[name], results[i])
        for i, name in enumerate(model.output_names)
        if name in model.class_names
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _named(model: Any, output: int, names: list[str], values: NDArray[np.float32]) -> list[Any]:
    rows = probabilities(model, values, output)
    if is_multi_label(model, output):
        limits = thresholds_of(model, output)
        return [_labels(row, names, limits) for row in rows]
    return [_prediction(row, names) for row in rows]


def _prediction(row: NDArray[np.float32], names: list[str]) -> Prediction:
    top = [(names[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:5]]
    return Prediction(*top[0], top)


def _labels(row: NDArray[np.float32], names: list[str], limits: NDArray[np.float32]) -> Labels:
    likeliest = np.argsort(-row, kind="stable")
    chosen = [names[i] for i in likeliest if row[i] >= limits[i]]
    return Labels(chosen, {name: float(p) for name, p in zip(names, row, strict=True)})


def is_multi_label(model: Any, output: int = 0) -> bool:
    """Whether an output tells for each of several labels whether it applies: two sigmoids or more,
    or as many logits of a binary cross-entropy."""
    tensor = model.outputs[output]
    if len(tensor.sample_shape) != 1 or tensor.sample_shape[0] < 2:
        return False
    if final_activation(tensor) == "sigmoid":
        return True
    return any(
        loss.loss.from_logits and loss.loss.kind in BINARY_KINDS
        for loss in _losses_of(model, output)
    )


def thresholds_of(model: Any, output: int = 0) -> NDArray[np.float32]:
    """(labels,) the probability from which on each label of an output counts; 0.5 unless set."""
    count = model.outputs[output].sample_shape[0]
    chosen = model.thresholds
    if isinstance(chosen, dict):
        chosen = chosen.get(model.output_names[output])
    values = np.full(count, 0.5) if chosen is None else chosen
    return np.asarray(values, np.float32)


def probabilities(model: Any, values: NDArray[np.float32], output: int = 0) -> NDArray[np.float32]:
    """(N, classes) from an output's values: as they are after softmax or several sigmoids,
    [1 - p, p] after one, and those of the logits when the loss was compiled from logits."""
    activation = final_activation(model.outputs[output])
    if values.ndim == 2 and activation in (None, UNKNOWN):
        kinds = {loss.loss.kind for loss in _losses_of(model, output) if loss.loss.from_logits}
        if kinds & set(BINARY_KINDS):
            values, activation = _core.activation("sigmoid", values, None, None), "sigmoid"
        elif "softmax_cross_entropy" in kinds:
            values, activation = _core.softmax(values, None), "softmax"
    if values.ndim == 2 and activation == "sigmoid":
        return np.concatenate([1 - values, values], axis=1) if values.shape[1] == 1 else values
    if values.ndim == 2 and values.shape[1] > 1 and activation == "softmax":
        return values
    raise ValueError(
        "classify: expected a model that ends in softmax, in sigmoids, or in logits that its loss "
        f"was compiled for, got {model.outputs[output].shape} from {model.outputs[output].name!r}"
    )


def _losses_of(model: Any, output: int) -> list[Any]:
    losses = [] if model._compilation is None else model._compilation.losses
    return [loss for loss in losses if loss.output == output]


def _inputs(model: Any, images: Any) -> Any:
    single_file = isinstance(images, (str, PathLike)) or type(images).__module__.startswith("PIL")
    if model.preprocessing is None:
        listed = isinstance(images, (list, tuple)) and len(images) > 0
        if single_file or (listed and isinstance(images[0], (str, PathLike))):
            raise ValueError(
                f"classify: {model.owner} has no preprocessing, so it cannot read files: give "
                "arrays as predict takes them, or set model.preprocessing"
            )
        array = to_array(images, "classify: images")
        return array[None] if array.shape == model.inputs[0].sample_shape else array
    if single_file:
        images = [images]
    elif isinstance(images, np.ndarray):
        one = images.ndim == 2 or (images.ndim == 3 and images.shape[-1] in (1, 3))
        images = [images] if one else images
    return model.preprocessing.batch(images)
