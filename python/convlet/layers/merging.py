"""Layers that join branches: sums, products, means, extremes, concatenation."""

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
    """The sum of tensors of one shape, or of shapes that broadcast: (H, W, C) with (C,) or
    (1, 1, C)."""

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        return [graph.node("add", self, self.several(graph, inputs))]


class Subtract(_Merge):
    """The first of two tensors minus the second; they broadcast as in Add."""

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        if len(inputs) != 2:
            raise arguments.expected(
                self.owner, "inputs", "a list of two tensors", f"{len(inputs)} tensors"
            )
        return [graph.node("binary", self, inputs, (), {"function": "subtract"})]


class Multiply(_Merge):
    """The elementwise product of tensors; they broadcast as in Add."""

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        return [graph.node("multiply", self, self.several(graph, inputs))]


class Average(_Merge):
    """The mean of tensors; they broadcast as in Add."""

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        total = graph.node("add", self, self.several(graph, inputs))
        return [graph.node("scale", self, [total], (), {"factor": 1 / len(inputs)})]


class _Extreme(_Merge):
    function: str

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        value, *others = self.several(graph, inputs)
        for other in others:
            value = graph.node("binary", self, [value, other], (), {"function": self.function})
        return [value]


class Maximum(_Extreme):
    """The elementwise largest of tensors; they broadcast as in Add."""

    function = "maximum"


class Minimum(_Extreme):
    """The elementwise smallest of tensors; they broadcast as in Add."""

    function = "minimum"


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


def subtract(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> SymbolicTensor:
    """``Subtract(**kwargs)(inputs)``."""
    return Subtract(**kwargs)(inputs)


def average(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> SymbolicTensor:
    """``Average(**kwargs)(inputs)``."""
    return Average(**kwargs)(inputs)


def maximum(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> SymbolicTensor:
    """``Maximum(**kwargs)(inputs)``."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> SymbolicTensor:
    """``Minimum(**kwargs)(inputs)``."""
    return Minimum(**kwargs)(inputs)


def multiply(inputs: Sequence[SymbolicTensor], **kwargs: Any) -> SymbolicTensor:
    """``Multiply(**kwargs)(inputs)``."""
    return Multiply(**kwargs)(inputs)


def concatenate(inputs: Sequence[SymbolicTensor], axis: int = -1, **kwargs: Any) -> SymbolicTensor:
    """``Concatenate(axis, **kwargs)(inputs)``."""
    return Concatenate(axis, **kwargs)(inputs)
