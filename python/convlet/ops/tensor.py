"""Reductions over axes, axes in another order, products of matrices, one-hot labels, upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from convlet import _core
from convlet._arguments import Precision, Size2, flag, integer, pair, text
from convlet._interop import Array, borrow

Axis = int | Sequence[int] | None


def _axes(op: str, name: str, value: Any, rank: int) -> list[int]:
    """The axes as a list; all of them for None."""
    if value is None:
        return list(range(rank))
    expected = "None, an integer or a sequence of integers"
    if isinstance(value, (tuple, list)):
        return [integer(op, name, axis, expected) for axis in value]
    return [integer(op, name, value, expected)]


def _reduce(function: str, x: Array, axis: Axis, keepdims: bool, out: Array | None) -> Array:
    x, y, give = borrow(function, out, x=x)
    axes = _axes(function, "axis", axis, getattr(x, "ndim", 0))
    return give(_core.reduce(function, x, axes, flag(function, "keepdims", keepdims), y))


def sum(x: Array, axis: Axis = None, keepdims: bool = False, *, out: Array | None = None) -> Array:
    """The sum of x over the axes (all of them for None), as in numpy.

    Args:
        x: of any shape.
        axis: an axis or several, counted from 0 (the batch) or from the end with -1.
        keepdims: whether the axes stay, with size 1.
        out: where to write y.
    """
    return _reduce("sum", x, axis, keepdims, out)


def mean(x: Array, axis: Axis = None, keepdims: bool = False, *, out: Array | None = None) -> Array:
    """The mean of x over the axes; arguments as for `sum`. NaN for the mean of nothing."""
    return _reduce("mean", x, axis, keepdims, out)


def max(x: Array, axis: Axis = None, keepdims: bool = False, *, out: Array | None = None) -> Array:
    """The largest value of x over the axes; arguments as for `sum`. NaN where there is one.

    ValueError for the largest of nothing.
    """
    return _reduce("max", x, axis, keepdims, out)


def min(x: Array, axis: Axis = None, keepdims: bool = False, *, out: Array | None = None) -> Array:
    """The smallest value of x over the axes; arguments as for `sum`. NaN where there is one.

    ValueError for the smallest of nothing.
    """
    return _reduce("min", x, axis, keepdims, out)


def transpose(x: Array, axes: Sequence[int] | None = None, *, out: Array | None = None) -> Array:
    """x with its axes in another order: y's axis i is x's axis axes[i]. None reverses them.

    Its gradient is the transposition back.
    """
    op = "transpose"
    x, y, give = borrow(op, out, x=x)
    rank = getattr(x, "ndim", 0)
    order = list(range(rank))[::-1] if axes is None else _axes(op, "axes", axes, rank)
    return give(_core.transpose(x, order, y))


def matmul(
    a: Array,
    b: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    precision: Precision = "float32",
    out: Array | None = None,
) -> Array:
    """Products of matrices: y[...,m,n] = sum_k a[...,m,k] * b[...,k,n].

    The gradients are such products too: da = matmul(dy, b, transpose_b=True) and
    db = matmul(a, dy, transpose_a=True).

    Args:
        a: (...,M,K), or (...,K,M) with transpose_a.
        b: (...,K,N), or (...,N,K) with transpose_b; its leading axes are those of a.
        precision: as for conv2d.
        out: where to write y.

    Returns:
        y (...,M,N).
    """
    op = "matmul"
    a, b, y, give = borrow(op, out, a=a, b=b)
    return give(
        _core.matmul(
            a,
            b,
            flag(op, "transpose_a", transpose_a),
            flag(op, "transpose_b", transpose_b),
            text(op, "precision", precision),
            y,
        )
    )


def one_hot(labels: Array, num_classes: int, *, out: Array | None = None) -> Array:
    """y[...,c] = 1 where labels[...] = c, else 0.

    Args:
        labels: integers (or whole floats) in [0, num_classes), of any shape; ValueError that gives
            the position of another.
        num_classes: the size of y's last axis.
        out: where to write y.

    Returns:
        y (...,num_classes), float32.
    """
    op = "one_hot"
    labels, y, give = borrow(op, out, labels=labels)
    return give(_core.one_hot(labels, integer(op, "num_classes", num_classes), y))


def upsample2d(
    x: Array,
    size: Size2 = 2,
    *,
    interpolation: Literal["nearest", "bilinear"] = "nearest",
    out: Array | None = None,
) -> Array:
    """Images enlarged by whole factors.

    Args:
        x: (N,H,W,C).
        size: the factor, or one for each axis (h, w).
        interpolation: "nearest" repeats pixels; "bilinear" goes between their centres, as Keras and
            as torch with align_corners=False.
        out: where to write y.

    Returns:
        y (N,H*h,W*w,C).
    """
    op = "upsample2d"
    x, y, give = borrow(op, out, x=x)
    return give(
        _core.upsample2d(x, pair(op, "size", size), text(op, "interpolation", interpolation), y)
    )


def upsample2d_backward(
    dy: Array,
    size: Size2 = 2,
    *,
    interpolation: Literal["nearest", "bilinear"] = "nearest",
    out: Array | None = None,
) -> Array:
    """The gradient of upsample2d with respect to x (N,H,W,C), from dy (N,H*h,W*w,C)."""
    op = "upsample2d_backward"
    dy, dx, give = borrow(op, out, dy=dy)
    size = pair(op, "size", size)
    return give(_core.upsample2d_backward(dy, size, text(op, "interpolation", interpolation), dx))
