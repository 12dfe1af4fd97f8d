"""Ops that move elements and compute nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convlet import _core
from convlet._interop import Array, borrow


def reshape(x: Array, newshape: Sequence[int]) -> Array:
    """x under another shape, in row-major order; one size may be -1. It shares x's memory where x
    is contiguous.

    On a symbolic tensor the first size is -1 (or None): the batch.
    """
    return _rearrange("reshape", x, lambda a: np.reshape(a, newshape))


def expand_dims(x: Array, axis: int) -> Array:
    """x with a new axis of size 1 at ``axis`` of the result."""
    return _rearrange("expand_dims", x, lambda a: np.expand_dims(a, axis))


def squeeze(x: Array, axis: int | Sequence[int] | None = None) -> Array:
    """x without the axes ``axis``, each of size 1; None: without all of size 1 (on a symbolic
    tensor never the batch)."""
    axes = tuple(axis) if isinstance(axis, list) else axis
    return _rearrange("squeeze", x, lambda a: np.squeeze(a, axes))


def concatenate(xs: Sequence[Array], axis: int = -1) -> Array:
    """Tensors side by side along an axis; their other sizes are equal."""
    return _join("concatenate", xs, lambda arrays: _library(arrays).concatenate(arrays, axis))


def stack(x: Sequence[Array], axis: int = 0) -> Array:
    """Tensors of one shape side by side along a new axis (on symbolic tensors not 0, the batch)."""
    return _join("stack", x, lambda arrays: _library(arrays).stack(arrays, axis))


def _library(arrays: Sequence[Any]) -> Any:
    """numpy, or the library of arrays on a GPU."""
    if isinstance(arrays[0], np.ndarray):
        return np
    from convlet._cuda_arrays import library_of

    return library_of(arrays[0])


def _rearrange(op: str, x: Array, function: Callable[[Any], Any]) -> Array:
    array, _, give = borrow(op, None, x=x)
    if not isinstance(array, _core.DeviceArray):
        return give(_checked(op, function, {"x": array}))

    def on_gpu(_: Any) -> Any:
        return x.reshape(function(np.broadcast_to(np.float32(0), array.shape)).shape)

    return _checked(op, on_gpu, {"x": array})


def _join(op: str, xs: Sequence[Array], function: Callable[[Any], Any]) -> Array:
    if not isinstance(xs, (list, tuple)) or not xs:
        raise TypeError(f"{op}: expected a list of arrays, got {xs!r}")
    names = [f"xs[{i}]" for i in range(len(xs))]
    *arrays, _, give = borrow(op, None, **dict(zip(names, xs, strict=True)))
    there = [isinstance(array, _core.DeviceArray) for array in arrays]
    named = dict(zip(names, arrays, strict=True))
    if not any(there):
        return give(_checked(op, function, named))
    if not all(there):
        raise ValueError(
            f"{op}: expected all arrays in one place, got {names[there.index(False)]} in the "
            f"memory of the host and {names[there.index(True)]} in that of a GPU"
        )
    return _checked(op, lambda _: function(list(xs)), named)


def _checked(op: str, function: Callable[[Any], Any], arrays: dict[str, Any]) -> Any:
    """function of the array, or of several as a list; an error of its library's gets the op's
    name."""
    for name, array in arrays.items():
        known = isinstance(array, (np.ndarray, _core.DeviceArray))
        if not known or array.dtype != "float32":
            got = f"dtype {array.dtype}" if known else type(array).__name__
            raise TypeError(f"{op}: expected {name} to be a float32 array, got {got}")
    try:
        return function(arrays["x"] if "x" in arrays else list(arrays.values()))
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        shapes = ", ".join(str(array.shape) for array in arrays.values())
        raise ValueError(f"{op}: expected other arguments for shapes {shapes}: {error}") from None
