"""Operands of ops on symbolic tensors: numbers, arrays and weights beside tensors of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convlet._arguments import integer
from convlet.layers.base import SymbolicTensor
from convlet.layers.operation import describe, parameter
from convlet.layers.variable import Variable
from convlet.ops.dispatch import traced

Operand = Any  # SymbolicTensor, Variable, array or number


def scalar(value: Operand) -> float | None:
    """A plain number, None for anything else."""
    if isinstance(value, (bool, np.bool_, SymbolicTensor, Variable)):
        return None
    if isinstance(value, (int, float, np.number)):
        return float(value)
    return float(value) if isinstance(value, np.ndarray) and value.ndim == 0 else None


def usable(op: str, variable: Variable) -> Variable:
    """The weight; ValueError outside of a call(), where no layer would own the use of it."""
    if traced() is None:
        raise ValueError(
            f"{op}: the weight {variable.name!r} can be used in the call() of the layer that it "
            "belongs to; elsewhere use its value, .numpy()"
        )
    return variable


def tensor_of(op: str, value: Operand) -> SymbolicTensor:
    """Any operand as a symbolic tensor."""
    if isinstance(value, SymbolicTensor):
        return value
    if isinstance(value, Variable):
        return parameter(usable(op, value))
    numbers = isinstance(value, (int, float, np.generic, np.ndarray, list, tuple))
    if not numbers or isinstance(value, bool):
        raise TypeError(
            f"{op}: expected symbolic tensors, weights, arrays and numbers, got {value!r}"
        )
    return parameter(np.asarray(value))


def aligned(op: str, *values: Operand) -> list[SymbolicTensor]:
    """Operands that numpy would broadcast to each other, so that a graph does it sample by
    sample."""
    tensors = [tensor_of(op, value) for value in values]
    ranks = [tensor.ndim for tensor in tensors if tensor.batched]
    if not ranks:
        return tensors
    rank = max(ranks)
    result = []
    for tensor in tensors:
        if tensor.batched and tensor.ndim != rank:
            raise ValueError(
                f"{op}: expected tensors with equally many axes, as the first is the batch, got "
                f"shapes {[t.shape for t in tensors]}; ops.expand_dims(x, axis) adds an axis"
            )
        if not tensor.batched and tensor.ndim >= rank:
            if tensor.ndim > rank or tensor.shape[0] != 1:
                raise ValueError(
                    f"{op}: expected weights and constants without a batch axis, to be broadcast "
                    f"over samples of shape {(None,) * rank}, got shape {tensor.shape}"
                )
            tensor = reshaped(tensor, tensor.shape[1:])
        result.append(tensor)
    return result


def sample_axis(op: str, tensor: SymbolicTensor, axis: Any, argument: str = "axis") -> int:
    """An axis as the graph counts: of a sample."""
    value = integer(op, argument, axis)
    if not -tensor.ndim <= value < tensor.ndim:
        raise ValueError(
            f"{op}: expected {argument} in [{-tensor.ndim}, {tensor.ndim}) for shape "
            f"{tensor.shape}, got {value}"
        )
    value %= tensor.ndim
    if tensor.batched and value == 0:
        raise ValueError(
            f"{op}: expected {argument} other than 0, the batch: a step does not mix samples; "
            f"got {axis!r} for shape {tensor.shape}"
        )
    return value - 1 if tensor.batched else value


def reshaped(tensor: SymbolicTensor, shape: Sequence[int]) -> SymbolicTensor:
    """To another shape of a sample."""
    if tuple(shape) == tensor.sample_shape:
        return tensor
    return describe("reshape", [tensor], {"shape": [int(size) for size in shape]})
