"""Max and average pooling, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

from convlet import _core
from convlet._arguments import Padding, Size2, flag, integers, pair, sides
from convlet._interop import Array, borrow


def max_pool2d(
    x: Array,
    pool_size: Size2 = 2,
    *,
    stride: Size2 | None = None,
    padding: Padding = 0,
    dilation: Size2 = 1,
    ceil_mode: bool = False,
    out: Array | None = None,
) -> Array:
    """The largest value of each window.

    y[n,p,q,c] = max_{r,s} x[n, p*stride + r*dilation - top, q*stride + s*dilation - left, c].

    NaN is larger than anything. Padding never wins.

    Args:
        x: images (N,H,W,C).
        pool_size: (R, S), or an integer for both.
        stride: an integer or (h, w); None is pool_size.
        padding: as conv2d's, at most half the window.
        dilation: pixels from one tap of the window to the next.
        ceil_mode: whether a last window may reach beyond the padded image; it must begin inside.
        out: where to write y.

    Returns:
        y (N,P,Q,C), P = (H + top + bottom - dilation*(R-1) - 1) / stride + 1, the quotient rounded
        down, or up with ceil_mode; Q likewise.
    """
    op = "max_pool2d"
    x, y, give = borrow(op, out, x=x)
    window = pair(op, "pool_size", pool_size)
    return give(
        _core.max_pool2d(
            x,
            window,
            window if stride is None else pair(op, "stride", stride),
            sides(op, padding),
            pair(op, "dilation", dilation),
            flag(op, "ceil_mode", ceil_mode),
            y,
        )
    )


def max_pool2d_backward(
    dy: Array,
    x: Array,
    pool_size: Size2 = 2,
    *,
    stride: Size2 | None = None,
    padding: Padding = 0,
    dilation: Size2 = 1,
    ceil_mode: bool = False,
    out: Array | None = None,
) -> Array:
    """The gradient of max_pool2d: dy goes to the largest value of its window.

    Of equal values the first in row-major order takes it, and the first NaN before any number.

    Args:
        dy: (N,P,Q,C).
        x: (N,H,W,C), the images that were pooled.
        pool_size, stride, padding, dilation, ceil_mode: as max_pool2d was given them.
        out: where to write dx.

    Returns:
        dx (N,H,W,C).
    """
    op = "max_pool2d_backward"
    dy, x, dx, give = borrow(op, out, dy=dy, x=x)
    window = pair(op, "pool_size", pool_size)
    return give(
        _core.max_pool2d_backward(
            dy,
            x,
            window,
            window if stride is None else pair(op, "stride", stride),
            sides(op, padding),
            pair(op, "dilation", dilation),
            flag(op, "ceil_mode", ceil_mode),
            dx,
        )
    )


def avg_pool2d(
    x: Array,
    pool_size: Size2 = 2,
    *,
    stride: Size2 | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    out: Array | None = None,
) -> Array:
    """The mean of each window.

    Args:
        x: images (N,H,W,C).
        pool_size: (R, S), or an integer for both.
        stride: an integer or (h, w); None is pool_size.
        padding: as conv2d's, at most half the window.
        ceil_mode: whether a last window may reach beyond the padded image; it must begin inside.
        count_include_pad: divide by the window's cells inside the padded image; by default (unlike
            torch's) by those inside x alone.
        out: where to write y.

    Returns:
        y (N,P,Q,C); P and Q as for max_pool2d.
    """
    op = "avg_pool2d"
    x, y, give = borrow(op, out, x=x)
    window = pair(op, "pool_size", pool_size)
    return give(
        _core.avg_pool2d(
            x,
            window,
            window if stride is None else pair(op, "stride", stride),
            sides(op, padding),
            flag(op, "ceil_mode", ceil_mode),
            flag(op, "count_include_pad", count_include_pad),
            y,
        )
    )


def avg_pool2d_backward(
    dy: Array,
    input_shape: Sequence[int],
    pool_size: Size2 = 2,
    *,
    stride: Size2 | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    out: Array | None = None,
) -> Array:
    """The gradient of avg_pool2d: dy is shared equally among the cells that its mean was taken of.

    Args:
        dy: (N,P,Q,C).
        input_shape: (N,H,W,C), the shape of x.
        pool_size, stride, padding, ceil_mode, count_include_pad: as avg_pool2d was given them.
        out: where to write dx.

    Returns:
        dx (N,H,W,C).
    """
    op = "avg_pool2d_backward"
    dy, dx, give = borrow(op, out, dy=dy)
    window = pair(op, "pool_size", pool_size)
    return give(
        _core.avg_pool2d_backward(
            dy,
            integers(op, "input_shape", input_shape),
            window,
            window if stride is None else pair(op, "stride", stride),
            sides(op, padding),
            flag(op, "ceil_mode", ceil_mode),
            flag(op, "count_include_pad", count_include_pad),
            dx,
        )
    )
