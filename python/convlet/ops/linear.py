"""Convolution and fully connected layers, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

from convlet import _core
from convlet._arguments import (
    Padding,
    Precision,
    Size2,
    activation_name,
    integer,
    integers,
    pair,
    sides,
    text,
)
from convlet._interop import Array, borrow


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Size2 = 1,
    padding: Padding = 0,
    dilation: Size2 = 1,
    groups: int = 1,
    activation: str | None = None,
    precision: Precision = "float32",
    out: Array | None = None,
) -> Array:
    """2-D convolution (cross-correlation, as in torch and Keras), with bias and activation fused.

    y[n,p,q,k] = act(bias[k] + sum_{r,s,c} x[n, p*stride + r*dilation - top,
                                             q*stride + s*dilation - left, g*C/groups + c]
                                           * weight[r,s,c,k]),   g = k // (K/groups)

    Args:
        x: images (N,H,W,C); reads outside them count as zero.
        weight: (R,S,C/groups,K), Keras' order.
        bias: (K,), or None.
        stride: pixels from one window to the next, >= 1; an integer or (h, w).
        padding: rows and columns of zeros: an integer, (h, w), ((top, bottom), (left, right)),
            "valid" (none) or "same" (Keras': P = ceil(H/stride), the odd row below, the odd column
            right).
        dilation: pixels from one tap of the window to the next, >= 1; an integer or (h, w).
        groups: divides C and K; channels of one group see each other alone. groups = C is
            depthwise.
        activation: None or one of those in convlet.ops, such as "relu"; "leaky_relu" has slope 0.2.
        out: where to write y.

    Returns:
        y (N,P,Q,K), P = (H + top + bottom - dilation*(R-1) - 1) // stride + 1, Q likewise.
    """
    op = "conv2d"
    x, weight, bias, y, give = borrow(op, out, x=x, weight=weight, bias=bias)
    return give(
        _core.conv2d(
            x,
            weight,
            bias,
            pair(op, "stride", stride),
            sides(op, padding),
            pair(op, "dilation", dilation),
            integer(op, "groups", groups),
            activation_name(op, activation),
            text(op, "precision", precision),
            y,
        )
    )


def conv2d_backward_input(
    dy: Array,
    weight: Array,
    input_shape: Sequence[int],
    *,
    stride: Size2 = 1,
    padding: Padding = 0,
    dilation: Size2 = 1,
    groups: int = 1,
    precision: Precision = "float32",
    out: Array | None = None,
) -> Array:
    """The gradient of conv2d (without activation) with respect to x.

    Args:
        dy: (N,P,Q,K).
        weight: (R,S,C/groups,K).
        input_shape: (N,H,W,C), the shape of x.
        stride, padding, dilation, groups, precision: as conv2d was given them.
        out: where to write dx.

    Returns:
        dx (N,H,W,C).
    """
    op = "conv2d_backward_input"
    dy, weight, dx, give = borrow(op, out, dy=dy, weight=weight)
    return give(
        _core.conv2d_backward_input(
            dy,
            weight,
            integers(op, "input_shape", input_shape),
            pair(op, "stride", stride),
            sides(op, padding),
            pair(op, "dilation", dilation),
            integer(op, "groups", groups),
            text(op, "precision", precision),
            dx,
        )
    )


def conv2d_backward_weight(
    dy: Array,
    x: Array,
    kernel_size: Size2,
    *,
    stride: Size2 = 1,
    padding: Padding = 0,
    dilation: Size2 = 1,
    groups: int = 1,
    precision: Precision = "float32",
    out: Array | None = None,
) -> Array:
    """The gradient of conv2d (without activation) with respect to its weight.

    Args:
        dy: (N,P,Q,K).
        x: (N,H,W,C).
        kernel_size: (R, S), or an integer for both.
        stride, padding, dilation, groups, precision: as conv2d was given them.
        out: where to write dw.

    Returns:
        dw (R,S,C/groups,K), summed over the batch.
    """
    op = "conv2d_backward_weight"
    dy, x, dw, give = borrow(op, out, dy=dy, x=x)
    return give(
        _core.conv2d_backward_weight(
            dy,
            x,
            pair(op, "kernel_size", kernel_size),
            pair(op, "stride", stride),
            sides(op, padding),
            pair(op, "dilation", dilation),
            integer(op, "groups", groups),
            text(op, "precision", precision),
            dw,
        )
    )


def conv2d_backward_bias(dy: Array, *, out: Array | None = None) -> Array:
    """The gradient of conv2d with respect to its bias: db[k] = sum_{n,p,q} dy[n,p,q,k].

    Args:
        dy: (N,P,Q,K).
        out: where to write db.

    Returns:
        db (K,).
    """
    op = "conv2d_backward_bias"
    dy, db, give = borrow(op, out, dy=dy)
    return give(_core.conv2d_backward_bias(dy, db))


def dense(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    activation: str | None = None,
    precision: Precision = "float32",
    out: Array | None = None,
) -> Array:
    """A fully connected layer: y[n,o] = act(bias[o] + sum_i x[n,i] * weight[i,o]).

    Args:
        x: (N,I).
        weight: (I,O), Keras' order.
        bias: (O,), or None.
        activation: None or one of those in convlet.ops, such as "relu"; "leaky_relu" has slope 0.2.
        precision: as for conv2d.
        out: where to write y.

    Returns:
        y (N,O).
    """
    op = "dense"
    x, weight, bias, y, give = borrow(op, out, x=x, weight=weight, bias=bias)
    return give(
        _core.dense(
            x, weight, bias, activation_name(op, activation), text(op, "precision", precision), y
        )
    )


def dense_backward(
    dy: Array, x: Array, weight: Array, *, precision: Precision = "float32"
) -> tuple[Array, Array, Array]:
    """The gradients of dense (without activation).

    Args:
        dy: (N,O).
        x: (N,I).
        weight: (I,O).
        precision: as for conv2d.

    Returns:
        (dx, dw, db): dx = dy @ weight.T (N,I); dw = x.T @ dy (I,O); db = sum_n dy[n] (O,).
    """
    op = "dense_backward"
    dy, x, weight, _, give = borrow(op, None, dy=dy, x=x, weight=weight)
    dx, dw, db = _core.dense_backward(dy, x, weight, text(op, "precision", precision))
    return give(dx), give(dw), give(db)
