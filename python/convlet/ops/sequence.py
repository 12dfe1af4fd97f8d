"""Attention and recurrent layers, and their gradients."""

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
    keep: bool = False,
) -> Array | tuple[Array, tuple[Array, ...]]:
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
        keep: whether to return what attention_backward needs of this call besides.

    Returns:
        y (N,T,H*E); with keep (y, kept), kept a tuple of y and lse (N,H,T), the logarithms of the
        sums of exponentials.
    """
    op = "attention"
    q, k, v, y, give = borrow(op, out, q=q, k=k, v=v)
    options = (*_options(op, heads, scale, causal), 0.0, 0, 0, 0)
    if not flag(op, "keep", keep):
        return give(_core.attention(q, k, v, *options, y))
    made, lse = _core.attention(q, k, v, *options, y, True)
    y = give(made)
    return y, (y, _like(op, y, lse))


def attention_backward(
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    *,
    heads: int,
    scale: float | None = None,
    causal: bool = False,
    kept: tuple[Array, Array] | None = None,
) -> tuple[Array, Array, Array]:
    """The gradients of attention.

    The probabilities P are made again, in blocks, from q, k and the sums of their exponentials
    (Dao et al. 2022). With dP = dy @ v.T and dS = P * (dP - sum(dy * y)) for each head:

        dq = scale * dS @ k,   dk = scale * dS.T @ q,   dv = P.T @ dy

    Args:
        dy: (N,T,H*E).
        q, k, v, heads, scale, causal: as attention was given them.
        kept: what attention kept of that call, unchanged; without, the forward runs again.

    Returns:
        (dq, dk, dv), of the shapes of q, k and v.
    """
    op = "attention_backward"
    y, lse = _pair(op, kept)
    dy, q, k, v, y, lse, _, give = borrow(op, None, dy=dy, q=q, k=k, v=v, y=y, lse=lse)
    options = _options(op, heads, scale, causal)
    dq, dk, dv = _core.attention_backward(dy, q, k, v, *options, 0.0, 0, 0, 0, y, lse)
    return give(dq), give(dk), give(dv)


def _options(
    op: str, heads: int, scale: float | None, causal: bool
) -> tuple[int, float | None, bool]:
    return (
        integer(op, "heads", heads),
        None if scale is None else number(op, "scale", scale),
        flag(op, "causal", causal),
    )


def _pair(op: str, kept: tuple[Array, Array] | None) -> tuple[Array | None, Array | None]:
    if kept is None:
        return None, None
    if not isinstance(kept, tuple) or len(kept) != 2:
        raise TypeError(f"{op}: expected kept to be the tuple that the forward kept, got {kept!r}")
    return kept


def simple_rnn(
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    return_sequences: bool = False,
    go_backwards: bool = False,
    out: Array | None = None,
    keep: bool = False,
) -> Array | tuple[Array, tuple[Array, ...]]:
    """A fully connected recurrent layer (Elman 1990).

    With h = 0 at the start, for each time step, m = h @ recurrent_kernel:

        h = tanh(x[:, t] @ kernel + bias + m)

    Args:
        x: (N,T,I).
        kernel: (I,U).
        recurrent_kernel: (U,U).
        bias: (U,), or None.
        return_sequences: whether y has the h of every step.
        go_backwards: whether to walk from the last time step to the first; the h of the steps come
            in that order.
        out: where to write y.
        keep: whether to return what simple_rnn_backward needs of this call besides.

    Returns:
        y (N,T,U), or (N,U), the h of the last step; with keep (y, kept), kept a tuple of two
        arrays: the values of the gates and the h before, of all steps.
    """
    arrays = (x, kernel, recurrent_kernel, bias)
    return _recurrent("simple_rnn", arrays, return_sequences, go_backwards, out, keep)


def simple_rnn_backward(
    dy: Array,
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    return_sequences: bool = False,
    go_backwards: bool = False,
    kept: tuple[Array, Array] | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """The gradients of simple_rnn, through time (Werbos 1990).

    Args:
        dy: of y's shape.
        x, kernel, recurrent_kernel, bias, return_sequences, go_backwards: as simple_rnn was given
            them.
        kept: what simple_rnn kept of that call, unchanged; without, the forward runs again.

    Returns:
        (dx, dkernel, drecurrent_kernel, dbias), of the shapes of the arguments; dbias is None where
        bias is.
    """
    arrays = (dy, x, kernel, recurrent_kernel, bias)
    return _recurrent_backward("simple_rnn", arrays, return_sequences, go_backwards, kept)


def lstm(
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    return_sequences: bool = False,
    go_backwards: bool = False,
    out: Array | None = None,
    keep: bool = False,
) -> Array | tuple[Array, tuple[Array, ...]]:
    """Long short-term memory (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    With h = 0 at the start, for each time step, m = h @ recurrent_kernel:

        i, f, g, o = split(x[:, t] @ kernel + bias + m)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g),   h = sigmoid(o) * tanh(c)

    Args:
        x: (N,T,I).
        kernel: (I,4*U), the gates i, f, g, o side by side, Keras' order.
        recurrent_kernel: (U,4*U).
        bias: (4*U,), or None.
        return_sequences: whether y has the h of every step.
        go_backwards: whether to walk from the last time step to the first; the h of the steps come
            in that order.
        out: where to write y.
        keep: whether to return what lstm_backward needs of this call besides.

    Returns:
        y (N,T,U), or (N,U), the h of the last step; with keep (y, kept), kept a tuple of two
        arrays: the values of the gates and the h before, of all steps.
    """
    arrays = (x, kernel, recurrent_kernel, bias)
    return _recurrent("lstm", arrays, return_sequences, go_backwards, out, keep)


def lstm_backward(
    dy: Array,
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    return_sequences: bool = False,
    go_backwards: bool = False,
    kept: tuple[Array, Array] | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """The gradients of lstm, through time (Werbos 1990).

    Args:
        dy: of y's shape.
        x, kernel, recurrent_kernel, bias, return_sequences, go_backwards: as lstm was given
            them.
        kept: what lstm kept of that call, unchanged; without, the forward runs again.

    Returns:
        (dx, dkernel, drecurrent_kernel, dbias), of the shapes of the arguments; dbias is None where
        bias is.
    """
    arrays = (dy, x, kernel, recurrent_kernel, bias)
    return _recurrent_backward("lstm", arrays, return_sequences, go_backwards, kept)


def gru(
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    return_sequences: bool = False,
    go_backwards: bool = False,
    out: Array | None = None,
    keep: bool = False,
) -> Array | tuple[Array, tuple[Array, ...]]:
    """Gated recurrent units (Cho et al. 2014), the reset gate after the product, as in Keras.

    With h = 0 at the start, for each time step, m = h @ recurrent_kernel + bias[1]:

        z, r, g = split(x[:, t] @ kernel + bias[0]),   mz, mr, mg = split(m)
        z = sigmoid(z + mz),   r = sigmoid(r + mr),   g = tanh(g + r * mg)
        h = z * h + (1 - z) * g

    Args:
        x: (N,T,I).
        kernel: (I,3*U), the gates z, r, g side by side, Keras' order.
        recurrent_kernel: (U,3*U).
        bias: (2,3*U), or None.
        return_sequences: whether y has the h of every step.
        go_backwards: whether to walk from the last time step to the first; the h of the steps come
            in that order.
        out: where to write y.
        keep: whether to return what gru_backward needs of this call besides.

    Returns:
        y (N,T,U), or (N,U), the h of the last step; with keep (y, kept), kept a tuple of two
        arrays: the values of the gates and the h before, of all steps.
    """
    arrays = (x, kernel, recurrent_kernel, bias)
    return _recurrent("gru", arrays, return_sequences, go_backwards, out, keep)


def gru_backward(
    dy: Array,
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    return_sequences: bool = False,
    go_backwards: bool = False,
    kept: tuple[Array, Array] | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """The gradients of gru, through time (Werbos 1990).

    Args:
        dy: of y's shape.
        x, kernel, recurrent_kernel, bias, return_sequences, go_backwards: as gru was given
            them.
        kept: what gru kept of that call, unchanged; without, the forward runs again.

    Returns:
        (dx, dkernel, drecurrent_kernel, dbias), of the shapes of the arguments; dbias is None where
        bias is.
    """
    arrays = (dy, x, kernel, recurrent_kernel, bias)
    return _recurrent_backward("gru", arrays, return_sequences, go_backwards, kept)


def _recurrent(
    op: str,
    arrays: tuple[Array, ...],
    return_sequences: bool,
    go_backwards: bool,
    out: Array | None,
    keep: bool,
) -> Array | tuple[Array, tuple[Array, ...]]:
    names = ("x", "kernel", "recurrent_kernel", "bias")
    *taken, y, give = borrow(op, out, **dict(zip(names, arrays, strict=True)))
    sequences = flag(op, "return_sequences", return_sequences)
    options = (sequences, flag(op, "go_backwards", go_backwards), y)
    if not flag(op, "keep", keep):
        return give(_core.recurrent(op, *taken, *options))
    made, *kept = _core.recurrent(op, *taken, *options, True)
    y = give(made)
    return y, tuple(_like(op, y, array) for array in kept)


def _recurrent_backward(
    op: str,
    arrays: tuple[Array, ...],
    return_sequences: bool,
    go_backwards: bool,
    kept: tuple[Array, Array] | None,
) -> tuple[Array, Array, Array, Array | None]:
    names = ("dy", "x", "kernel", "recurrent_kernel", "bias", "gates", "previous")
    name = f"{op}_backward"
    arrays = (*arrays, *_pair(name, kept))
    *taken, gates, previous, _, give = borrow(name, None, **dict(zip(names, arrays, strict=True)))
    sequences = flag(name, "return_sequences", return_sequences)
    backwards = flag(name, "go_backwards", go_backwards)
    dx, dw, dr, db = _core.recurrent_backward(op, *taken, sequences, backwards, gates, previous)
    return give(dx), give(dw), give(dr), None if db is None else give(db)


def _like(op: str, y: Array, array: Array) -> Array:
    """A result of the core as an array of y's library."""
    return borrow(op, None, y=y)[-1](array)
