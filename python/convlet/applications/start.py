"""How every network of this package begins: its arguments checked, its input brought to scale."""

from __future__ import annotations

from typing import Any

from convlet.applications.sizes import SMALLEST
from convlet.layers import Input, Rescaling, SymbolicTensor, arguments
from convlet.layers.base import Layer

Shape = tuple[int, int, int]


def start(
    model: str, input_shape: Any, classes: Any, scale: float
) -> tuple[SymbolicTensor, SymbolicTensor]:
    """The symbolic input of a network, and the same at the network's scale. Raises as `checked`."""
    shape = checked(model, input_shape, classes)
    x = inputs = Input(shape)
    for layer in scaling(scale):
        x = layer(x)
    return inputs, x


def first_layers(model: str, input_shape: Any, classes: Any, scale: float) -> list[Any]:
    """`start` for a Sequential: its first layers."""
    return [Input(checked(model, input_shape, classes)), *scaling(scale)]


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


def scaling(scale: float) -> list[Layer]:
    """The layer that brings the input to the network's scale, if one is needed."""
    return [Rescaling(scale)] if scale != 1 else []
