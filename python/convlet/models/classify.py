"""From a model's outputs to names."""

from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlet.models.data import to_array
from convlet.models.network import UNKNOWN, final_activation


class Prediction(NamedTuple):
    """What a model thinks of an image.

    name: the likeliest class. confidence: its probability. top5: the five (or fewer) likeliest
    (name, probability), best first.
    """

    name: str
    confidence: float
    top5: list[tuple[str, float]]


def classify(model: Any, images: Any, batch_size: int) -> list[Prediction]:
    """See Model.classify."""
    model.build_for(images, "classify")
    names = model.class_names
    if names is None:
        raise ValueError(f"classify: {model.owner} has no class names: set model.class_names")
    if len(model.outputs) != 1:
        raise ValueError(f"classify: expected a model with one output, got {model.output_names}")
    rows = probabilities(model, model.predict(_inputs(model, images), batch_size=batch_size))
    result = []
    for row in rows:
        best = np.argsort(-row, kind="stable")[:5]
        top = [(names[i], float(row[i])) for i in best]
        result.append(Prediction(*top[0], top))
    return result


def probabilities(model: Any, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, classes) from the model's output: as it is after softmax, [1 - p, p] after one sigmoid,
    and the softmax of logits when the loss was compiled from logits."""
    activation = final_activation(model.outputs[0])
    single = outputs.ndim == 2 and outputs.shape[1] == 1
    if activation == "softmax" and outputs.ndim == 2 and not single:
        return outputs
    losses = [] if model._compilation is None else model._compilation.losses
    from_logits = activation in (None, UNKNOWN) and any(loss.loss.from_logits for loss in losses)
    if single and (activation == "sigmoid" or from_logits):
        p = outputs if activation == "sigmoid" else 1 / (1 + np.exp(-outputs))
        return np.concatenate([1 - p, p], axis=1)
    softmax_loss = any(loss.loss.kind == "softmax_cross_entropy" for loss in losses)
    if outputs.ndim == 2 and from_logits and softmax_loss:
        from convlet import _core

        return _core.softmax(outputs, None)
    raise ValueError(
        "classify: expected a model that ends in softmax, in one sigmoid, or in logits that its "
        f"loss was compiled for, got {model.outputs[0].shape} from {model.outputs[0].name!r}"
    )


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
