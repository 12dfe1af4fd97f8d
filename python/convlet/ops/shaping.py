"""Ops that move elements and compute nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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
    return _join("concatenate", xs, lambda arrays: np.concatenate(arrays, axis))


def stack(x: Sequence[Array], axis: int = 0) -> Array:
    """Tensors of one shape side by side along a new axis (on symbolic tensors not 0, the batch)."""
    return _join("stack", x, lambda arrays: np.stack(arrays, axis))


def _rearrange(op: str, x: Array, function: Callable[[Any], Any]) -> Array:
    array, _, give = borrow(op, None, x=x)
    return give(_checked(op, function, {"x": array}))


def _join(op: str, xs: Sequence[Array], function: Callable[[Any], Any]) -> Array:
    if not isinstance(xs, (list, tuple)) or not xs:
        raise TypeError(f"{op}: expected a list of arrays, got {xs!r}")
    names = [f"xs[{i}]" for i in range(len(xs))]
    *arrays, _, give = borrow(op, None, **dict(zip(names, xs, strict=True)))
    return give(_checked(op, function, dict(zip(names, arrays, strict=True))))


def _checked(op: str, function: Callable[[Any], Any], arrays: dict[str, Any]) -> Any:
    """function of the array, or of several as a list; an error of numpy's gets the op's name."""
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            got = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"{op}: expected {name} to be a float32 array, got {got}")
    try:
        return function(arrays["x"] if "x" in arrays else list(arrays.values()))
    except (ValueError, TypeError) as error:  # AxisError is a ValueError
        shapes = ", ".join(str(array.shape) for array in arrays.values())
        raise ValueError(f"{op}: expected other arguments for shapes {shapes}: {error}") from None
