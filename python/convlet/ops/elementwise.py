"""Softmax over the last axis and dropout."""

from __future__ import annotations

from typing import Literal

from convlet import _core
from convlet._arguments import counter, number, text
from convlet._interop import Array, borrow


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """y = exp(x - m) / sum(exp(x - m)), m = max(x), over the last axis.

    x has any rank >= 1 with at least one value along the last axis; y has its shape; out may be x.
    """
    x, y, give = borrow("softmax", out, x=x)
    return give(_core.softmax(x, y))


def softmax_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = y * (dy - sum(dy * y)) over the last axis, with y = softmax(x). out may be dy."""
    dy, y, dx, give = borrow("softmax_backward", out, dy=dy, y=y)
    return give(_core.softmax_backward(dy, y, dx))


def log_softmax(x: Array, *, out: Array | None = None) -> Array:
    """y = x - m - log(sum(exp(x - m))), m = max(x), over the last axis.

    x has any rank >= 1 with at least one value along the last axis; y has its shape; out may be x.
    """
    x, y, give = borrow("log_softmax", out, x=x)
    return give(_core.log_softmax(x, y))


def log_softmax_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = dy - exp(y) * sum(dy) over the last axis, with y = log_softmax(x). out may be dy."""
    dy, y, dx, give = borrow("log_softmax_backward", out, dy=dy, y=y)
    return give(_core.log_softmax_backward(dy, y, dx))


def dropout(
    x: Array,
    rate: float = 0.5,
    *,
    seed: int,
    step: int = 0,
    noise: Literal["element", "channel", "sample"] = "element",
    out: Array | None = None,
) -> Array:
    """Sets what is drawn to 0 with probability `rate` and divides the rest by 1 - rate.

    What is kept depends on (seed, step) and its position alone, so the gradient is the same call on
    dy. The random numbers are Philox4x32-10 (Salmon et al. 2011).

    Args:
        x: of any shape; (N,...,C) for noise "channel", (N,...) for "sample".
        rate: in [0, 1).
        seed: an integer in [0, 2^64).
        step: an integer in [0, 2^24); each gives other draws.
        noise: what one draw decides about: an "element", a "channel" of a sample (spatial dropout,
            Tompson et al. 2015) or a whole "sample" (stochastic depth, Huang et al. 2016).
        out: where to write y; it may be x.

    Returns:
        y, of x's shape.
    """
    op = "dropout"
    x, y, give = borrow(op, out, x=x)
    return give(
        _core.dropout(
            x,
            number(op, "rate", rate),
            counter(op, "seed", seed, 64),
            counter(op, "step", step, 24),
            0,
            text(op, "noise", noise),
            y,
        )
    )
