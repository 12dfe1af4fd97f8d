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

from convlet._arguments import Padding, Size2, flag, integer, number, pair, sides, text
from convlet.layers.base import SymbolicTensor
from convlet.layers.operation import describe
from convlet.layers.variable import Variable
from convlet.ops.dispatch import traced
from convlet.ops.operands import (
    Operand,
    aligned,
    reshaped,
    sample_axis,
    scalar,
    tensor_of,
    usable,
)

# ------------------------------------------------------------------ elementwise


def _unary(name: str) -> Callable[[Operand], SymbolicTensor]:
    def function(x: Operand) -> SymbolicTensor:
        return describe("unary", [tensor_of(name, x)], {"function": name}, label=name)

    return function


def _activation(name: str) -> Callable[[Operand], SymbolicTensor]:
    def function(x: Operand) -> SymbolicTensor:
        return describe("activation", [tensor_of(name, x)], {"activation": name}, label=name)

    return function


def leaky_relu(x: Operand, negative_slope: float = 0.01) -> SymbolicTensor:
    return _with_alpha("leaky_relu", x, number("leaky_relu", "negative_slope", negative_slope))


def elu(x: Operand, alpha: float = 1.0) -> SymbolicTensor:
    return _with_alpha("elu", x, number("elu", "alpha", alpha))


def _with_alpha(name: str, x: Operand, alpha: float) -> SymbolicTensor:
    attributes = {"activation": name, "alpha": alpha}
    return describe("activation", [tensor_of(name, x)], attributes, label=name)


def softmax(x: Operand) -> SymbolicTensor:
    return describe("softmax", [tensor_of("softmax", x)])


def log_softmax(x: Operand) -> SymbolicTensor:
    return describe("log_softmax", [tensor_of("log_softmax", x)])


def _scale(x: SymbolicTensor, factor: float, offset: float, label: str) -> SymbolicTensor:
    return describe("scale", [x], {"factor": factor, "offset": offset}, label=label)


def _finite(op: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{op}: expected finite numbers, got {value}")
    return value


def add(a: Operand, b: Operand) -> SymbolicTensor:
    for x, other in ((a, b), (b, a)):
        value = scalar(other)
        if value is not None:
            return _scale(tensor_of("add", x), 1.0, _finite("add", value), "add")
    return describe("add", aligned("add", a, b))


def subtract(a: Operand, b: Operand) -> SymbolicTensor:
    left, right = scalar(a), scalar(b)
    if right is not None:
        return _scale(tensor_of("subtract", a), 1.0, -_finite("subtract", right), "subtract")
    if left is not None:
        return _scale(tensor_of("subtract", b), -1.0, _finite("subtract", left), "subtract")
    return _binary("subtract")(a, b)


def multiply(a: Operand, b: Operand) -> SymbolicTensor:
    for x, other in ((a, b), (b, a)):
        value = scalar(other)
        if value is not None:
            return _scale(tensor_of("multiply", x), _finite("multiply", value), 0.0, "multiply")
    return describe("multiply", aligned("multiply", a, b))


def divide(a: Operand, b: Operand) -> SymbolicTensor:
    left, right = scalar(a), scalar(b)
    if right is not None:
        if right == 0:
            raise ValueError("divide: expected a divisor other than 0, got 0")
        return _scale(tensor_of("divide", a), 1.0 / _finite("divide", right), 0.0, "divide")
    if left is not None:
        inverse = _unary("reciprocal")(b)
        return inverse if left == 1 else multiply(inverse, left)
    return _binary("divide")(a, b)


def power(a: Operand, b: Operand) -> SymbolicTensor:
    names = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    simple = names.get(scalar(b) or 0.0)
    return _unary(simple)(a) if simple else _binary("power")(a, b)


def _binary(name: str) -> Callable[[Operand, Operand], SymbolicTensor]:
    def function(a: Operand, b: Operand) -> SymbolicTensor:
        return describe("binary", aligned(name, a, b), {"function": name}, label=name)

    return function


def where(condition: Operand, a: Operand, b: Operand) -> SymbolicTensor:
    return describe("where", aligned("where", condition, a, b))


# ------------------------------------------------------------------ reductions


def _reduction(name: str) -> Callable[..., SymbolicTensor]:
    def function(x: Operand, axis: Any = None, keepdims: bool = False) -> SymbolicTensor:
        tensor = tensor_of(name, x)
        whole = axis is None and tensor.batched
        if whole and not (name == "mean" and getattr(traced(), "may_average_batch", False)):
            raise ValueError(
                f"{name}: expected axis, an axis or several other than 0 (the batch): a step does "
                f"not mix samples; got None for shape {tensor.shape}"
            )
        if whole:
            return _mean_over_batch(tensor)
        listed = range(tensor.ndim) if axis is None else axis
        listed = listed if isinstance(listed, (tuple, list, range)) else [listed]
        axes = sorted(sample_axis(name, tensor, one) for one in listed)
        attributes = {"function": name, "axes": axes, "keepdims": flag(name, "keepdims", keepdims)}
        return describe("reduce", [tensor], attributes, label=name)

    return function


def _mean_over_batch(tensor: SymbolicTensor) -> SymbolicTensor:
    """The mean of everything, in a loss. The graph has each sample's own mean: the loss is their
    mean over the batch, so sums and multiples of such means come out right, and nothing else is
    possible with them (see Operation.apply)."""
    axes = list(range(tensor.ndim - 1))
    attributes = {"function": "mean", "axes": axes, "keepdims": False}
    result = describe("reduce", [tensor], attributes, label="mean") if axes else tensor * 1.0
    result.node.batched, result.node.over_batch = False, True
    return result


# ------------------------------------------------------------------ shapes


def reshape(x: Operand, newshape: Sequence[int | None]) -> SymbolicTensor:
    op, tensor = "reshape", tensor_of("reshape", x)
    sizes = [newshape] if isinstance(newshape, int) else list(newshape)
    if tensor.batched:
        if not sizes or sizes[0] not in (-1, None):
            raise ValueError(
                f"{op}: expected newshape to begin with -1, the batch, for shape {tensor.shape}, "
                f"got {newshape}"
            )
        sizes = sizes[1:]
    return reshaped(tensor, _fill(op, tensor, sizes))


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
    tensor = tensor_of("expand_dims", x)
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
    return reshaped(tensor, shape)


def squeeze(x: Operand, axis: Any = None) -> SymbolicTensor:
    tensor = tensor_of("squeeze", x)
    shape = tensor.sample_shape
    if axis is None:
        return reshaped(tensor, [size for size in shape if size != 1])
    listed = axis if isinstance(axis, (tuple, list)) else [axis]
    axes = {sample_axis("squeeze", tensor, one) for one in listed}
    if any(shape[i] != 1 for i in axes):
        raise ValueError(f"squeeze: expected axis of size 1 in shape {tensor.shape}, got {axis}")
    return reshaped(tensor, [size for i, size in enumerate(shape) if i not in axes])


def transpose(x: Operand, axes: Sequence[int] | None = None) -> SymbolicTensor:
    tensor = tensor_of("transpose", x)
    listed = list(range(tensor.ndim))[::-1] if axes is None else list(axes)
    places = [integer("transpose", "axes", axis) % tensor.ndim for axis in listed if tensor.ndim]
    if sorted(places) != list(range(tensor.ndim)) or (tensor.batched and places[0] != 0):
        kept = "that begins with 0, the batch, " if tensor.batched else ""
        raise ValueError(
            f"transpose: expected axes, an order of the axes {kept}for shape {tensor.shape}, "
            f"got {axes}"
        )
    order = [place - 1 for place in places[1:]] if tensor.batched else places
    if order == sorted(order):
        return tensor
    return describe("transpose", [tensor], {"permutation": order})


def concatenate(xs: Sequence[Operand], axis: int = -1) -> SymbolicTensor:
    tensors = aligned("concatenate", *xs)
    first = next((tensor for tensor in tensors if tensor.batched), tensors[0])
    place = sample_axis("concatenate", first, axis)
    return describe("concatenate", tensors, {"axis": place})


def stack(x: Sequence[Operand], axis: int = 0) -> SymbolicTensor:
    return concatenate([expand_dims(one, axis) for one in x], axis)


def getitem(x: Operand, key: Any) -> SymbolicTensor:
    """x[key] for integers, slices of step 1, None and one Ellipsis."""
    op, tensor = "slice", tensor_of("slice", x)
    keys = list(key) if isinstance(key, tuple) else [key]
    if any(isinstance(k, (list, np.ndarray, Variable, SymbolicTensor)) for k in keys):
        raise TypeError(f"{op}: expected integers, slices, None and ..., got {key!r}")
    named = [k for k in keys if k is not None and k is not Ellipsis]
    if len(named) > tensor.ndim or keys.count(Ellipsis) > 1:
        raise IndexError(f"{op}: expected at most {tensor.ndim} indices, got {key!r}")
    if Ellipsis not in keys:
        keys.append(Ellipsis)
    at = keys.index(Ellipsis)
    keys[at : at + 1] = [slice(None)] * (tensor.ndim - len(named))
    if tensor.batched and keys[0] != slice(None):
        raise ValueError(f"{op}: expected ':' for axis 0, the batch, got {key!r}")
    return _take(op, tensor, keys[1:] if tensor.batched else keys)


def _take(op: str, tensor: SymbolicTensor, keys: list[Any]) -> SymbolicTensor:
    """One key for each axis of a sample, and None between them."""
    shape: list[int] = []
    axis = 0
    for key in keys:
        if key is None:
            shape.append(1)
            continue
        size = tensor.sample_shape[axis]
        single = not isinstance(key, slice)
        if single:
            index = integer(op, "index", key)
            if not -size <= index < size:
                raise IndexError(f"{op}: expected an index in [{-size}, {size}), got {index}")
            begin, end = index % size, index % size + 1
        else:
            begin, end, step = key.indices(size)
            if step != 1 or end <= begin:
                raise IndexError(
                    f"{op}: expected slices of step 1 with at least one element, got {key!r} for "
                    f"an axis of {size}"
                )
        if end - begin != size:
            attributes = {"axis": axis, "begin": begin, "size": end - begin}
            tensor = describe("slice", [tensor], attributes)
        if not single:
            shape.append(end - begin)
        axis += 1
    return reshaped(tensor, shape)


# ------------------------------------------------------------------ products and windows


def matmul(
    a: Operand, b: Operand, *, transpose_a: bool = False, transpose_b: bool = False
) -> SymbolicTensor:
    op = "matmul"
    attributes = {
        "transpose_a": flag(op, "transpose_a", transpose_a),
        "transpose_b": flag(op, "transpose_b", transpose_b),
    }
    left = tensor_of(op, a)
    plain = not transpose_a and not transpose_b
    if plain and left.batched and isinstance(b, (Variable, np.ndarray)) and len(b.shape) == 2:
        return dense(left, b)
    right = tensor_of(op, b)
    both = left.batched and right.batched
    if left.ndim < (3 if both else 2) or right.ndim < (3 if both else 2):
        raise ValueError(
            f"{op}: expected matrices (N,...,M,K) and (N,...,K,L), of which one may be a weight "
            f"without batch axis, got shapes {left.shape} and {right.shape}"
        )
    if left.batched and not right.batched and right.ndim == 2 and not transpose_a:
        *rows, size = left.sample_shape
        left = reshaped(left, [math.prod(rows), size])
        product = describe(op, [left, right], attributes)
        return reshaped(product, [*rows, product.sample_shape[-1]])
    return describe(op, [left, right], attributes)


def dense(
    x: Operand, weight: Operand, bias: Operand = None, *, activation: str | None = None
) -> SymbolicTensor:
    attributes = {} if activation is None else {"activation": activation}
    return describe(
        "dense", [tensor_of("dense", x)], attributes, _parameters("dense", weight, bias)
    )


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
    return describe(op, [tensor_of(op, x)], attributes, _parameters(op, weight, bias))


def _parameters(op: str, weight: Operand, bias: Operand) -> list[Any]:
    """weight and bias as the parameters of a node."""
    for name, value in (("weight", weight), ("bias", bias)):
        if isinstance(value, SymbolicTensor):
            raise TypeError(
                f"{op}: expected {name} to be a weight or an array, got {value!r}; ops.matmul "
                "takes tensors on both sides"
            )
        if isinstance(value, Variable):
            usable(op, value)
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
    return describe(op, [tensor_of(op, x)], attributes)


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
    return describe(op, [tensor_of(op, x)], attributes)


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


def upsample2d(x: Operand, size: Size2 = 2, *, interpolation: str = "nearest") -> SymbolicTensor:
    op = "upsample2d"
    attributes = {
        "size": list(pair(op, "size", size)),
        "interpolation": text(op, "interpolation", interpolation),
    }
    return describe(op, [tensor_of(op, x)], attributes)


def one_hot(labels: Operand, num_classes: int) -> SymbolicTensor:
    attributes = {"classes": integer("one_hot", "num_classes", num_classes)}
    return describe("one_hot", [tensor_of("one_hot", labels)], attributes)


# ------------------------------------------------------------------ by name

_UNARY = ("exp", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "negative", "reciprocal", "sign")
_BINARY = (
    *("maximum", "minimum", "greater", "greater_equal", "less", "less_equal"),
    *("equal", "not_equal"),
)
_ACTIVATIONS = (
    *("relu", "sigmoid", "tanh", "gelu", "silu", "relu6", "selu", "softplus"),
    *("hard_sigmoid", "hard_swish"),
)

# What each op of dispatch.NAMES does with symbolic tensors.
FORMS: dict[str, Callable[..., SymbolicTensor]] = {
    **{name: _unary(name) for name in _UNARY},
    **{name: _binary(name) for name in _BINARY},
    **{name: _activation(name) for name in _ACTIVATIONS},
    **{name: _reduction(name) for name in ("sum", "mean", "max", "min")},
    **{
        function.__name__: function
        for function in (
            *(leaky_relu, elu, softmax, log_softmax, one_hot),
            *(add, subtract, multiply, divide, power, where),
            *(reshape, expand_dims, squeeze, transpose, concatenate, stack),
            *(matmul, dense, conv2d, max_pool2d, avg_pool2d, upsample2d),
        )
    },
}
