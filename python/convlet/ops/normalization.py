"""Normalization: batch_norm, and its gradients."""

from __future__ import annotations

from convlet import _core
from convlet._arguments import flag, number
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
