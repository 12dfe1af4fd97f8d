"""How every network of this package begins: its arguments checked, its input brought to scale."""

from __future__ import annotations

from typing import Any

from convlet.applications.sizes import SMALLEST
from convlet.layers import Input, Normalization, Rescaling, SymbolicTensor, arguments
from convlet.layers.base import Layer

Shape = tuple[int, int, int]
Scale = float | str

# (mean, standard deviation) of each channel, for pixels brought to 0..1.
NORMALIZATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def start(
    model: str, input_shape: Any, classes: Any, scale: Scale
) -> tuple[SymbolicTensor, SymbolicTensor]:
    """The symbolic input of a network, and the same at the network's scale. Raises as `checked`."""
    shape = checked(model, input_shape, classes)
    x = inputs = Input(shape)
    for layer in scaling(model, scale, shape[-1]):
        x = layer(x)
    return inputs, x


def first_layers(model: str, input_shape: Any, classes: Any, scale: Scale) -> list[Any]:
    """`start` for a Sequential: its first layers."""
    shape = checked(model, input_shape, classes)
    return [Input(shape), *scaling(model, scale, shape[-1])]


def checked(model: str, input_shape: Any, classes: Any) -> Shape:
    """The input's shape (H, W, C). ValueError that names ``model`` and the argument for anything
    else, for images that are too small, and for a number of classes below 1."""
    shape = arguments.sample_shape(model, "input_shape", input_shape)
    if len(shape) != 3:
        raise arguments.expected(model, "input_shape", "(height, width, channels)", input_shape)
    smallest = SMALLEST.get(model, 1)
    if min(shape[:2]) < smallest:
        raise arguments.expected(
            model, "input_shape", f"images of at least {smallest}x{smallest}", input_shape
        )
    arguments.integer(model, "classes", classes)
    return shape


def scaling(model: str, scale: Scale, channels: int) -> list[Layer]:
    """The layer that brings the input to the network's scale, if one is needed."""
    if not isinstance(scale, str):
        return [Rescaling(scale)] if scale != 1 else []
    if scale not in NORMALIZATIONS:
        known = " or ".join(map(repr, NORMALIZATIONS))
        raise arguments.expected(model, "scale", f"a number, {known}", scale)
    if channels != 3:
        raise arguments.expected(
            model, "scale", f"a number for images of {channels} channels", scale
        )
    mean, deviation = NORMALIZATIONS[scale]
    variance = [(255 * value) ** 2 for value in deviation]
    return [Normalization(mean=[255 * value for value in mean], variance=variance)]
