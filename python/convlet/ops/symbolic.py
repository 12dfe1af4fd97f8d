"""The ops on symbolic tensors: each describes one or a few nodes of a graph.

Axes are counted as in arrays, the batch axis being 0. No op reaches along it, as a sample's result
must not depend on the others of its batch. A weight, and what is made of weights alone, has no
batch axis: its axes are all its own, and beside a tensor of samples it is broadcast as numpy does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convlet._arguments import Padding, Size2, flag, integer, number, pair, sides
from convlet.layers.base import SymbolicTensor
from convlet.layers.operation import describe
from convlet.layers.variable import Variable
from convlet.ops.dispatch import traced

Operand = Any  # SymbolicTensor, Variable, array or number


# ------------------------------------------------------------------ operands


def _scalar(value: Operand) -> float | None:
    """A plain number, None for anything else."""
    if isinstance(value, (bool, np.bool_, SymbolicTensor, Variable)):
        return None
    if isinstance(value, (int, float, np.number)):
        return float(value)
    return float(value) if isinstance(value, np.ndarray) and value.ndim == 0 else None


def _weight(op: str, variable: Variable) -> Variable:
    if traced() is None:
        raise ValueError(
            f"{op}: the weight {variable.name!r} can be used in the call() of the layer that it "
            "belongs to; elsewhere use its value, .numpy()"
        )
    return variable


def _tensor(op: str, value: Operand) -> SymbolicTensor:
    """An operand that is a symbolic tensor."""
    if not isinstance(value, SymbolicTensor):
        raise TypeError(f"{op}: expected a symbolic tensor, got {value!r}")
    return value


def _aligned(op: str, *values: Operand) -> list[SymbolicTensor]:
    """Operands with equally many axes, so that what is done sample by sample is what numpy does."""
    tensors = [_tensor(op, value) for value in values]
    if len({tensor.ndim for tensor in tensors}) > 1:
        raise ValueError(
            f"{op}: expected tensors with equally many axes, as the first is the batch, got "
            f"shapes {[t.shape for t in tensors]}; ops.expand_dims(x, axis) adds an axis"
        )
    return tensors


def _axis(op: str, tensor: SymbolicTensor, axis: Any, argument: str = "axis") -> int:
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


def _reshape(tensor: SymbolicTensor, shape: Sequence[int]) -> SymbolicTensor:
    """To another shape of a sample."""
    if tuple(shape) == tensor.sample_shape:
        return tensor
    return describe("reshape", [tensor], {"shape": [int(size) for size in shape]})


# ------------------------------------------------------------------ elementwise


def _activation(name: str) -> Callable[[Operand], SymbolicTensor]:
    def function(x: Operand) -> SymbolicTensor:
        return describe("activation", [_tensor(name, x)], {"activation": name}, label=name)

    return function


def leaky_relu(x: Operand, negative_slope: float = 0.01) -> SymbolicTensor:
    return _with_alpha("leaky_relu", x, number("leaky_relu", "negative_slope", negative_slope))


def elu(x: Operand, alpha: float = 1.0) -> SymbolicTensor:
    return _with_alpha("elu", x, number("elu", "alpha", alpha))


def _with_alpha(name: str, x: Operand, alpha: float) -> SymbolicTensor:
    attributes = {"activation": name, "alpha": alpha}
    return describe("activation", [_tensor(name, x)], attributes, label=name)


def softmax(x: Operand) -> SymbolicTensor:
    return describe("softmax", [_tensor("softmax", x)])


def log_softmax(x: Operand) -> SymbolicTensor:
    return describe("log_softmax", [_tensor("log_softmax", x)])


def _scale(x: SymbolicTensor, factor: float, offset: float, label: str) -> SymbolicTensor:
    return describe("scale", [x], {"factor": factor, "offset": offset}, label=label)


def _finite(op: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{op}: expected finite numbers, got {value}")
    return value


def add(a: Operand, b: Operand) -> SymbolicTensor:
    for x, other in ((a, b), (b, a)):
        value = _scalar(other)
        if value is not None:
            return _scale(_tensor("add", x), 1.0, _finite("add", value), "add")
    return describe("add", _aligned("add", a, b))


def multiply(a: Operand, b: Operand) -> SymbolicTensor:
    for x, other in ((a, b), (b, a)):
        value = _scalar(other)
        if value is not None:
            return _scale(_tensor("multiply", x), _finite("multiply", value), 0.0, "multiply")
    return describe("multiply", _aligned("multiply", a, b))


# ------------------------------------------------------------------ shapes


def reshape(x: Operand, newshape: Sequence[int | None]) -> SymbolicTensor:
    op, tensor = "reshape", _tensor("reshape", x)
    sizes = [newshape] if isinstance(newshape, int) else list(newshape)
    if tensor.batched:
        if not sizes or sizes[0] not in (-1, None):
            raise ValueError(
                f"{op}: expected newshape to begin with -1, the batch, for shape {tensor.shape}, "
                f"got {newshape}"
            )
        sizes = sizes[1:]
    return _reshape(tensor, _fill(op, tensor, sizes))


def _fill(op: str, tensor: SymbolicTensor, sizes: list[Any]) -> list[int]:
    """The sizes with what is left in the place of -1."""
    count = math.prod(tensor.sample_shape)
    values = [integer(op, "newshape", size) for size in sizes]
    known = math.prod(size for size in values if size != -1)
    if values.count(-1) == 1 and known > 0 and count % known == 0:
        values[values.index(-1)] = count // known
    if any(size < 1 for size in values) or math.prod(values) != count:
        raise ValueError(
            f"{op}: expected newshape of {count} elements for shape {tensor.shape}, got {sizes}"
        )
    return values


def expand_dims(x: Operand, axis: int) -> SymbolicTensor:
    tensor = _tensor("expand_dims", x)
    value = integer("expand_dims", "axis", axis)
    least = 1 if tensor.batched else 0
    place = value + tensor.ndim + 1 if value < 0 else value
    if not least <= place <= tensor.ndim:
        raise ValueError(
            f"expand_dims: expected axis in [{least}, {tensor.ndim}] for shape {tensor.shape}, "
            f"got {axis}"
        )
    shape = list(tensor.sample_shape)
    shape.insert(place - least, 1)
    return _reshape(tensor, shape)


def squeeze(x: Operand, axis: Any = None) -> SymbolicTensor:
    tensor = _tensor("squeeze", x)
    shape = tensor.sample_shape
    if axis is None:
        return _reshape(tensor, [size for size in shape if size != 1])
    listed = axis if isinstance(axis, (tuple, list)) else [axis]
    axes = {_axis("squeeze", tensor, one) for one in listed}
    if any(shape[i] != 1 for i in axes):
        raise ValueError(f"squeeze: expected axis of size 1 in shape {tensor.shape}, got {axis}")
    return _reshape(tensor, [size for i, size in enumerate(shape) if i not in axes])


def concatenate(xs: Sequence[Operand], axis: int = -1) -> SymbolicTensor:
    tensors = _aligned("concatenate", *xs)
    place = _axis("concatenate", tensors[0], axis)
    return describe("concatenate", tensors, {"axis": place})


def stack(x: Sequence[Operand], axis: int = 0) -> SymbolicTensor:
    return concatenate([expand_dims(one, axis) for one in x], axis)


# ------------------------------------------------------------------ products and windows


def dense(
    x: Operand, weight: Operand, bias: Operand = None, *, activation: str | None = None
) -> SymbolicTensor:
    attributes = {} if activation is None else {"activation": activation}
    return describe("dense", [_tensor("dense", x)], attributes, _parameters("dense", weight, bias))


def conv2d(
    x: Operand,
    weight: Operand,
    bias: Operand = None,
    *,
    stride: Size2 = 1,
    padding: Padding = 0,
    dilation: Size2 = 1,
    groups: int = 1,
    activation: str | None = None,
) -> SymbolicTensor:
    op = "conv2d"
    attributes: dict[str, Any] = {
        "stride": list(pair(op, "stride", stride)),
        "dilation": list(pair(op, "dilation", dilation)),
        "groups": integer(op, "groups", groups),
        **_padding(op, padding),
    }
    if activation is not None:
        attributes["activation"] = activation
    return describe(op, [_tensor(op, x)], attributes, _parameters(op, weight, bias))


def _parameters(op: str, weight: Operand, bias: Operand) -> list[Any]:
    """weight and bias as the parameters of a node."""
    for name, value in (("weight", weight), ("bias", bias)):
        if isinstance(value, SymbolicTensor):
            raise TypeError(f"{op}: expected {name} to be a weight or an array, got {value!r}")
        if isinstance(value, Variable):
            _weight(op, value)
    return [value for value in (weight, bias) if value is not None]


def _padding(op: str, padding: Padding) -> dict[str, Any]:
    value = sides(op, padding)
    if isinstance(value, str):
        return {"padding": value}
    return {"pad": [size for side in value for size in side]}


def max_pool2d(
    x: Operand,
    pool_size: Size2 = 2,
    *,
    stride: Size2 | None = None,
    padding: Padding = 0,
    dilation: Size2 = 1,
    ceil_mode: bool = False,
) -> SymbolicTensor:
    op = "max_pool2d"
    attributes = _window(op, pool_size, stride, padding, ceil_mode)
    attributes["dilation"] = list(pair(op, "dilation", dilation))
    return describe(op, [_tensor(op, x)], attributes)


def avg_pool2d(
    x: Operand,
    pool_size: Size2 = 2,
    *,
    stride: Size2 | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> SymbolicTensor:
    op = "avg_pool2d"
    attributes = _window(op, pool_size, stride, padding, ceil_mode)
    attributes["count_include_pad"] = flag(op, "count_include_pad", count_include_pad)
    return describe(op, [_tensor(op, x)], attributes)


def _window(
    op: str, pool_size: Size2, stride: Size2 | None, padding: Padding, ceil_mode: bool
) -> dict[str, Any]:
    window = pair(op, "pool_size", pool_size)
    return {
        "pool_size": list(window),
        "stride": list(window if stride is None else pair(op, "stride", stride)),
        "ceil_mode": flag(op, "ceil_mode", ceil_mode),
        **_padding(op, padding),
    }


# ------------------------------------------------------------------ by name

_ACTIVATIONS = (
    *("relu", "sigmoid", "tanh", "gelu", "silu", "relu6", "selu", "softplus"),
    *("hard_sigmoid", "hard_swish"),
)

# What each op of dispatch.NAMES does with symbolic tensors.
FORMS: dict[str, Callable[..., SymbolicTensor]] = {
    **{name: _activation(name) for name in _ACTIVATIONS},
    **{
        function.__name__: function
        for function in (
            *(leaky_relu, elu, softmax, log_softmax, add, multiply),
            *(reshape, expand_dims, squeeze, concatenate, stack),
            *(dense, conv2d, max_pool2d, avg_pool2d),
        )
    },
}
