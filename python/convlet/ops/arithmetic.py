"""Elementwise functions of one or more arrays; several arrays broadcast as in numpy.

Operands are arrays or numbers. Shapes are aligned at their last axes, and an axis of size 1, or one
that is missing, is repeated: (N,H,W,C) with (C,), or (N,1,1,C).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convlet import _core
from convlet._interop import Array, borrow


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _take(op: str, out: Array | None, **operands: Any) -> tuple[Any, ...]:
    """As borrow; Python's numbers become arrays in the place of the others."""
    arrays = {name: value for name, value in operands.items() if not _is_number(value)}
    *taken, y, give = borrow(op, out, **arrays)
    found = dict(zip(arrays, taken, strict=True))
    there = next((array for array in taken if isinstance(array, _core.DeviceArray)), None)

    def number(value: float) -> Any:
        return np.asarray(value, np.float32) if there is None else there.scalar(value)

    values = [found[name] if name in found else number(value) for name, value in operands.items()]
    return *values, y, give or (lambda array: array)


def _binary(function: str, a: Array, b: Array, out: Array | None) -> Array:
    a, b, y, give = _take(function, out, a=a, b=b)
    return give(_core.binary(function, a, b, y))


def _unary(function: str, x: Array, out: Array | None) -> Array:
    x, y, give = borrow(function, out, x=x)
    return give(_core.unary(function, x, y))


def add(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = a + b.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("add", a, b, out)


def subtract(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = a - b.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("subtract", a, b, out)


def multiply(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = a * b.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("multiply", a, b, out)


def divide(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = a / b.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("divide", a, b, out)


def power(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = a^b; NaN for a negative a and a b that is not whole.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("power", a, b, out)


def maximum(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = the larger of a and b; NaN where one of them is.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("maximum", a, b, out)


def minimum(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = the smaller of a and b; NaN where one of them is.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("minimum", a, b, out)


def greater(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = 1 where a > b, else 0.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("greater", a, b, out)


def greater_equal(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = 1 where a >= b, else 0.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("greater_equal", a, b, out)


def less(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = 1 where a < b, else 0.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("less", a, b, out)


def less_equal(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = 1 where a <= b, else 0.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("less_equal", a, b, out)


def equal(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = 1 where a == b, else 0.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("equal", a, b, out)


def not_equal(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = 1 where a != b, else 0.

    a and b broadcast; out may be one of y's shape.
    """
    return _binary("not_equal", a, b, out)


def exp(x: Array, *, out: Array | None = None) -> Array:
    """y = e^x. x and y have any shape; out may be x."""
    return _unary("exp", x, out)


def log(x: Array, *, out: Array | None = None) -> Array:
    """y = ln(x): -inf at 0, NaN below. x and y have any shape; out may be x."""
    return _unary("log", x, out)


def log1p(x: Array, *, out: Array | None = None) -> Array:
    """y = ln(1 + x), accurate near 0. x and y have any shape; out may be x."""
    return _unary("log1p", x, out)


def sqrt(x: Array, *, out: Array | None = None) -> Array:
    """y = the square root of x. x and y have any shape; out may be x."""
    return _unary("sqrt", x, out)


def rsqrt(x: Array, *, out: Array | None = None) -> Array:
    """y = 1 / sqrt(x). x and y have any shape; out may be x."""
    return _unary("rsqrt", x, out)


def square(x: Array, *, out: Array | None = None) -> Array:
    """y = x * x. x and y have any shape; out may be x."""
    return _unary("square", x, out)


def abs(x: Array, *, out: Array | None = None) -> Array:
    """y = |x|. x and y have any shape; out may be x."""
    return _unary("abs", x, out)


def negative(x: Array, *, out: Array | None = None) -> Array:
    """y = -x. x and y have any shape; out may be x."""
    return _unary("negative", x, out)


def reciprocal(x: Array, *, out: Array | None = None) -> Array:
    """y = 1 / x. x and y have any shape; out may be x."""
    return _unary("reciprocal", x, out)


def sign(x: Array, *, out: Array | None = None) -> Array:
    """y = 1, 0 or -1, the sign of x; NaN stays NaN. x and y have any shape; out may be x."""
    return _unary("sign", x, out)


def where(condition: Array, a: Array, b: Array, *, out: Array | None = None) -> Array:
    """y = a where the condition is not 0, else b.

    Args:
        condition: float32 or bool; NaN counts as true, as in numpy.
        a, b: broadcast with the condition.
        out: where to write y; it may be an argument of y's shape.

    Returns:
        y, an array of the library of a.
    """
    if str(getattr(condition, "dtype", "")).removeprefix("torch.") == "bool":
        condition = condition.float() if hasattr(condition, "float") else condition.astype("f4")
    a, b, condition, y, give = _take("where", out, a=a, b=b, condition=condition)
    return give(_core.where(condition, a, b, y))
