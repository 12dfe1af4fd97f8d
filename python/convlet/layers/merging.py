"""Layers that join branches: Add, Multiply, Concatenate."""

from collections.abc import Sequence
from typing import Any

from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer, SymbolicTensor


class _Merge(Layer):
    def several(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        if len(inputs) < 2:
            raise arguments.expected(
                self.owner, "inputs", "a list of two or more tensors", f"{len(inputs)} tensor"
            )
        return inputs


class Add(_Merge):
    """The sum of tensors of one shape."""

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        return [graph.node("add", self, self.several(graph, inputs))]


class Multiply(_Merge):
    """The elementwise product of tensors of one shape."""

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        return [graph.node("multiply", self, self.several(graph, inputs))]


class Concatenate(_Merge):
    """Tensors side by side along an axis; the other sizes are equal.

    Args:
        axis: counts the batch axis, as in Keras: 1, 2, ... or -1 (the last), -2, ...
    """

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        if not arguments.is_integer(axis) or axis == 0:
            raise arguments.expected(
                self.owner, "axis", "an integer other than 0 (the batch)", axis
            )
        self.axis = int(axis)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        rank = len(graph.shape(self.several(graph, inputs)[0]))
        axis = self.axis - 1 if self.axis > 0 else self.axis + rank
        if not 0 <= axis < rank:
            raise arguments.expected(
                self.owner, "axis", f"an axis of tensors with {rank + 1} axes", self.axis
            )
        return [graph.node("concatenate", self, inputs, (), {"axis": axis})]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}


def add(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> SymbolicTensor:
    """``Add(**kwargs)(inputs)``."""
    return Add(**kwargs)(inputs)


def multiply(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> SymbolicTensor:
    """``Multiply(**kwargs)(inputs)``."""
    return Multiply(**kwargs)(inputs)


def concatenate(inputs: Sequence[SymbolicTensor], axis: int = -1, **kwargs: Any) -> SymbolicTensor:
    """``Concatenate(axis, **kwargs)(inputs)``."""
    return Concatenate(axis, **kwargs)(inputs)
