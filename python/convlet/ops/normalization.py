"""Normalization by the statistics of a channel, a sample or a group, and the gradients."""

from __future__ import annotations

from convlet import _core
from convlet._arguments import flag, integer, number
from convlet._interop import Array, borrow


def batch_norm(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array | None,
    var: Array | None,
    *,
    training: bool = False,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    out: Array | None = None,
) -> Array:
    """Normalizes each channel, the last axis, over all other axes (Ioffe & Szegedy 2015).

    y = gamma * (x - m) / sqrt(v + epsilon) + beta. In training m and v are the mean and the biased
    variance of x, and mean and var follow them as moving averages; else m and v are mean and var.

    Args:
        x: (...,C) of any rank >= 1.
        gamma: (C,), or None for 1.
        beta: (C,), or None for 0.
        mean, var: (C,). In training they are changed in place:
            mean = momentum * mean + (1 - momentum) * m, and var likewise; both may be None. An
            empty x leaves them as they are.
        training: whether to normalize by the statistics of x.
        momentum: in [0, 1]; the share of the old average, as in Keras (torch's is 1 - momentum).
        epsilon: > 0.
        out: where to write y; it may be x.

    Returns:
        y, of x's shape. With one row (N*H*W = 1) in training v = 0 and y = beta.
    """
    op = "batch_norm"
    x, gamma, beta, mean, var, y, give = borrow(
        op, out, x=x, gamma=gamma, beta=beta, mean=mean, var=var
    )
    return give(
        _core.batch_norm(
            x,
            gamma,
            beta,
            mean,
            var,
            flag(op, "training", training),
            number(op, "momentum", momentum),
            number(op, "epsilon", epsilon),
            y,
        )
    )


def batch_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array | None = None,
    var: Array | None = None,
    *,
    training: bool = False,
    epsilon: float = 1e-3,
) -> tuple[Array, Array, Array]:
    """The gradients of batch_norm.

    Args:
        dy, x: (...,C), of one shape.
        gamma: (C,), or None for 1.
        mean, var: (C,), what x was normalized by; not read in training, where they are made of x.
        training, epsilon: as batch_norm was given them.

    Returns:
        (dx, dgamma, dbeta). With x^ = (x - m) / sqrt(v + epsilon) and N the rows:
        dbeta = sum_n dy, dgamma = sum_n dy * x^, dx = gamma / sqrt(v + epsilon) *
        (dy - dbeta / N - x^ * dgamma / N) in training and gamma / sqrt(v + epsilon) * dy else.
    """
    op = "batch_norm_backward"
    training = flag(op, "training", training)
    if training:
        mean = var = None
    dy, x, gamma, mean, var, _, give = borrow(op, None, dy=dy, x=x, gamma=gamma, mean=mean, var=var)
    dx, dgamma, dbeta = _core.batch_norm_backward(
        dy, x, gamma, mean, var, training, number(op, "epsilon", epsilon)
    )
    return give(dx), give(dgamma), give(dbeta)


def layer_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    axes: int = 1,
    epsilon: float = 1e-3,
    out: Array | None = None,
) -> Array:
    """Normalizes the last `axes` axes of each row together (Ba, Kiros & Hinton 2016).

    y = gamma * (x - m) / sqrt(v + epsilon) + beta with the mean m and the biased variance v of the
    row.

    Args:
        x: (N...,C...), where C... are the last `axes` axes.
        gamma: (C...), or None for 1.
        beta: (C...), or None for 0.
        axes: from 1 to the rank of x.
        epsilon: > 0.
        out: where to write y; it may be x.

    Returns:
        y, of x's shape.
    """
    op = "layer_norm"
    x, gamma, beta, y, give = borrow(op, out, x=x, gamma=gamma, beta=beta)
    axes, epsilon = integer(op, "axes", axes), number(op, "epsilon", epsilon)
    return give(_core.layer_norm(x, gamma, beta, axes, epsilon, y))


def layer_norm_backward(
    dy: Array, x: Array, gamma: Array | None = None, *, axes: int = 1, epsilon: float = 1e-3
) -> tuple[Array, Array, Array]:
    """The gradients of layer_norm: (dx, dgamma, dbeta).

    With x^ = (x - m) / sqrt(v + epsilon), g = dy * gamma and means over a row's elements:
    dx = (g - mean(g) - x^ * mean(g * x^)) / sqrt(v + epsilon), dgamma and dbeta are the sums over
    rows of dy * x^ and dy. dy and x have one shape; gamma, axes, epsilon: as layer_norm was given
    them.
    """
    op = "layer_norm_backward"
    dy, x, gamma, _, give = borrow(op, None, dy=dy, x=x, gamma=gamma)
    axes, epsilon = integer(op, "axes", axes), number(op, "epsilon", epsilon)
    dx, dgamma, dbeta = _core.layer_norm_backward(dy, x, gamma, axes, epsilon)
    return give(dx), give(dgamma), give(dbeta)


def group_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    groups: int = 32,
    epsilon: float = 1e-3,
    out: Array | None = None,
) -> Array:
    """Normalizes the channels of each sample in groups of neighbours (Wu & He 2018).

    y = gamma * (x - m) / sqrt(v + epsilon) + beta with the mean m and the biased variance v of a
    sample's group: all its positions and its C / groups channels.

    Args:
        x: (N,...,C) of any rank >= 2.
        gamma: (C,), or None for 1.
        beta: (C,), or None for 0.
        groups: divides C.
        epsilon: > 0.
        out: where to write y; it may be x.

    Returns:
        y, of x's shape.
    """
    op = "group_norm"
    x, gamma, beta, y, give = borrow(op, out, x=x, gamma=gamma, beta=beta)
    groups, epsilon = integer(op, "groups", groups), number(op, "epsilon", epsilon)
    return give(_core.group_norm(x, gamma, beta, groups, epsilon, y))


def group_norm_backward(
    dy: Array, x: Array, gamma: Array | None = None, *, groups: int = 32, epsilon: float = 1e-3
) -> tuple[Array, Array, Array]:
    """The gradients of group_norm: (dx, dgamma, dbeta).

    They are those of layer_norm with a row for each sample and group; dgamma and dbeta (C,). dy and
    x have one shape; gamma, groups, epsilon: as group_norm was given them.
    """
    op = "group_norm_backward"
    dy, x, gamma, _, give = borrow(op, None, dy=dy, x=x, gamma=gamma)
    groups, epsilon = integer(op, "groups", groups), number(op, "epsilon", epsilon)
    dx, dgamma, dbeta = _core.group_norm_backward(dy, x, gamma, groups, epsilon)
    return give(dx), give(dgamma), give(dbeta)


def instance_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    epsilon: float = 1e-3,
    out: Array | None = None,
) -> Array:
    """Normalizes each channel of each sample over its positions (Ulyanov, Vedaldi & Lempitsky
    2016): group_norm with groups = C.

    x (N,...,C) of any rank >= 2; gamma and beta (C,) or None; epsilon > 0; out may be x.
    """
    op = "instance_norm"
    x, gamma, beta, y, give = borrow(op, out, x=x, gamma=gamma, beta=beta)
    return give(_core.instance_norm(x, gamma, beta, number(op, "epsilon", epsilon), y))


def instance_norm_backward(
    dy: Array, x: Array, gamma: Array | None = None, *, epsilon: float = 1e-3
) -> tuple[Array, Array, Array]:
    """The gradients of instance_norm: (dx, dgamma, dbeta), as of group_norm with groups = C."""
    op = "instance_norm_backward"
    dy, x, gamma, _, give = borrow(op, None, dy=dy, x=x, gamma=gamma)
    dx, dgamma, dbeta = _core.instance_norm_backward(dy, x, gamma, number(op, "epsilon", epsilon))
    return give(dx), give(dgamma), give(dbeta)
