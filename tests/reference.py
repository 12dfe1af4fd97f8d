"""What the tests compare with: torch in float32 and float64, and how close is close enough.

Two comparisons, both against torch:
  exact      inputs are small integers whose sums stay below 2^24, so every order of adding gives
  the
             same float32 and the result must be equal bit for bit;
  accurate   err(ours) <= 2 * err(torch) + atol, both errors measured against torch in float64.
"""

import numpy as np
import torch
from hypothesis import strategies as st

AWKWARD = (1, 3, 5, 17, 19, 31, 66, 99)


def integers(*shape, low=-3, high=3, seed=0):
    """A float32 array of random integers in [low, high]."""
    rng = np.random.default_rng([seed, *shape])
    return rng.integers(low, high + 1, shape).astype(np.float32)


def floats(*shape, scale=1.0, seed=0):
    """A float32 array of normal random numbers with this standard deviation."""
    rng = np.random.default_rng([seed, *shape])
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def run_torch(function, inputs, dy=None, dtype=torch.float32):
    """torch's answer in `dtype`: function(*inputs), and the gradients of all float inputs given dy.

    function takes and returns tensors in convlet's layouts (NHWC, RSCK). Returns (y, [gradient or
    None for each input]) as arrays; the list is empty when dy is None.
    """
    tensors = []
    for value in inputs:
        tensor = None if value is None else torch.from_numpy(np.array(value))
        if tensor is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype).requires_grad_(dy is not None)
        tensors.append(tensor)
    y = function(*tensors)
    if dy is None:
        return y.detach().numpy(), []
    y.backward(torch.from_numpy(np.array(dy)).to(dtype))
    gradients = [None if t is None or t.grad is None else t.grad.numpy() for t in tensors]
    return y.detach().numpy(), gradients


def error(got, exact):
    """The largest absolute error; both must be NaN, inf and -inf at the same places."""
    got, exact = np.asarray(got, np.float64), np.asarray(exact, np.float64)
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(got[~finite], exact[~finite])
    if not finite.any():
        return 0.0
    return float(np.abs(got[finite] - exact[finite]).max())


def assert_exact(got, expected):
    """The same dtype, shape and values; only the sign of zero and the bits of NaN may differ."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


def assert_accurate(got, torch32, torch64, atol=1e-6):
    """err(got) <= 2 * err(torch32) + atol, against torch64."""
    got, torch64 = np.asarray(got), np.asarray(torch64)
    assert got.dtype == np.float32
    assert got.shape == torch64.shape
    ours, theirs = error(got, torch64), error(torch32, torch64)
    assert ours <= 2 * theirs + atol, f"error {ours:.3g}, torch's {theirs:.3g}"


def assert_like_torch(got, function, inputs, *, dy=None, gradients=(), exact=False, atol=1e-6):
    """Compares `got` (y, or None) and `gradients` ({position of the input: gradient}) with torch.

    function, inputs and dy are those of run_torch.
    """
    gradients = dict(gradients)
    y32, g32 = run_torch(function, inputs, dy)
    if exact:
        if got is not None:
            assert_exact(got, y32)
        for i, gradient in gradients.items():
            assert_exact(gradient, g32[i])
        return
    y64, g64 = run_torch(function, inputs, dy, torch.float64)
    if got is not None:
        assert_accurate(got, y32, y64, atol)
    for i, gradient in gradients.items():
        assert_accurate(gradient, g32[i], g64[i], atol)


def nchw(x):
    """A torch tensor (N,H,W,C) as (N,C,H,W)."""
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    """A torch tensor (N,C,H,W) as (N,H,W,C)."""
    return x.permute(0, 2, 3, 1)


def torch_padding(padding, size, window, stride, dilation):
    """((top,bottom),(left,right)) of any form of padding, by Keras' rule for "same"."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        sides = []
        for n, r, s, d in zip(size, window, stride, dilation, strict=True):
            total = max((-(-n // s) - 1) * s + d * (r - 1) + 1 - n, 0)
            sides.append((total // 2, total - total // 2))
        return tuple(sides)
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    h, w = padding
    return (h if isinstance(h, tuple) else (h, h)), (w if isinstance(w, tuple) else (w, w))


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def torch_conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """torch's conv2d in convlet's layouts and with convlet's padding."""
    stride, dilation = pair(stride), pair(dilation)
    (top, bottom), (left, right) = torch_padding(
        padding, x.shape[1:3], weight.shape[:2], stride, dilation
    )
    x = torch.nn.functional.pad(nchw(x), (left, right, top, bottom))
    w = weight.permute(3, 2, 0, 1)
    return nhwc(torch.nn.functional.conv2d(x, w, bias, stride, 0, dilation, groups))


WORD = np.uint64(0xFFFFFFFF)


def philox(key, stream, index):
    """Philox4x32-10 (Salmon et al. 2011) of the counters (stream, index[i]): (len(index), 4)."""
    low = lambda x: np.uint64(x) & WORD  # noqa: E731
    high = lambda x: np.uint64(x) >> np.uint64(32)  # noqa: E731
    k0, k1 = low(key), high(key)
    c0, c1 = low(index), high(index)
    c2, c3 = np.full_like(c0, low(stream)), np.full_like(c0, high(stream))
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = high(p1) ^ c1 ^ k0, low(p1), high(p0) ^ c3 ^ k1, low(p0)
        k0, k1 = low(k0 + np.uint64(0x9E3779B9)), low(k1 + np.uint64(0xBB67AE85))
    return np.stack([c0, c1, c2, c3], axis=1)


# Shapes for hypothesis: mostly small and odd, now and then one that crosses a vector or a tile.
sizes = st.one_of(st.integers(1, 9), st.sampled_from(AWKWARD))
channels = st.one_of(st.integers(1, 9), st.sampled_from((16, 17, 31, 33, 66)))
batches = st.integers(0, 4)


@st.composite
def windows(draw, size, largest=4):
    """(window, stride, (before, after), dilation) along an axis with room for one window."""
    dilation = draw(st.integers(1, 2))
    window = draw(st.integers(1, largest))
    span = dilation * (window - 1) + 1
    before = draw(st.integers(0, span // 2))
    after = draw(st.integers(0, span // 2))
    if size + before + after < span:
        window, dilation, before, after = 1, 1, 0, 0
    return window, draw(st.integers(1, 3)), (before, after), dilation


@st.composite
def conv2d_cases(draw):
    """Keyword arguments of torch_conv2d, and the shapes of x and weight: (x, weight, options)."""
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    c, k = groups * draw(channels), groups * draw(channels)
    if draw(st.integers(0, 4)) == 0:
        groups = c
        k = c * draw(st.integers(1, 2))
    h, w = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    r, sh, ph, dh = draw(windows(h))
    s, sw, pw, dw = draw(windows(w))
    options = {
        "stride": (sh, sw),
        "padding": draw(st.sampled_from(((ph, pw), (ph, pw), "same"))),
        "dilation": (dh, dw),
        "groups": groups,
    }
    return (draw(batches), h, w, c), (r, s, c // groups, k), options


@st.composite
def pool2d_cases(draw):
    """(shape of x, options): pool_size, stride, padding (symmetric, at most half the window)."""
    h, w = draw(st.integers(2, 14)), draw(st.integers(2, 14))
    r, s = draw(st.integers(1, min(h, 4))), draw(st.integers(1, min(w, 4)))
    options = {
        "pool_size": (r, s),
        "stride": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "padding": (draw(st.integers(0, r // 2)), draw(st.integers(0, s // 2))),
        "ceil_mode": draw(st.booleans()),
    }
    return (draw(batches), h, w, draw(channels)), options
