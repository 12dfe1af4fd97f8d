"""Attention, and its gradient."""

from __future__ import annotations

from convlet import _core
from convlet._arguments import flag, integer, number
from convlet._interop import Array, borrow


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    heads: int,
    scale: float | None = None,
    causal: bool = False,
    out: Array | None = None,
) -> Array:
    """Scaled dot-product attention of several heads side by side (Vaswani et al. 2017).

    For the columns q_h, k_h, v_h of head h of each sample:

        y_h = softmax(scale * q_h @ k_h.T) @ v_h,   the softmax over the S keys

    The (T,S) matrix of probabilities is never stored: one pass over blocks of keys keeps the
    largest score so far and the sum of exponentials (Milakov & Gimelshein 2018).

    Args:
        q: queries (N,T,H*D).
        k: keys (N,S,H*D).
        v: values (N,S,H*E).
        heads: H; it divides the columns of q and of v.
        scale: None for 1 / sqrt(D).
        causal: whether query t sees the keys s <= t only.
        out: where to write y.

    Returns:
        y (N,T,H*E).
    """
    op = "attention"
    q, k, v, y, give = borrow(op, out, q=q, k=k, v=v)
    return give(_core.attention(q, k, v, *_options(op, heads, scale, causal), 0.0, 0, 0, 0, y))


def attention_backward(
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    *,
    heads: int,
    scale: float | None = None,
    causal: bool = False,
) -> tuple[Array, Array, Array]:
    """The gradients of attention.

    The probabilities P are made again, in blocks, from q, k and the sums of their exponentials
    (Dao et al. 2022). With dP = dy @ v.T and dS = P * (dP - sum(dy * y)) for each head:

        dq = scale * dS @ k,   dk = scale * dS.T @ q,   dv = P.T @ dy

    Args:
        dy: (N,T,H*E).
        q, k, v, heads, scale, causal: as attention was given them.

    Returns:
        (dq, dk, dv), of the shapes of q, k and v.
    """
    op = "attention_backward"
    dy, q, k, v, _, give = borrow(op, None, dy=dy, q=q, k=k, v=v)
    options = _options(op, heads, scale, causal)
    dq, dk, dv = _core.attention_backward(dy, q, k, v, *options, 0.0, 0, 0, 0)
    return give(dq), give(dk), give(dv)


def _options(
    op: str, heads: int, scale: float | None, causal: bool
) -> tuple[int, float | None, bool]:
    return (
        integer(op, "heads", heads),
        None if scale is None else number(op, "scale", scale),
        flag(op, "causal", causal),
    )
