"""max_pool2d and avg_pool2d, their gradients and their check, against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convlet import _core, ops
from reference import (
    AWKWARD,
    assert_exact,
    assert_like_torch,
    floats,
    integers,
    nchw,
    nhwc,
    pair,
    pool2d_cases,
    torch_padding,
)

F = torch.nn.functional


def sides(x, pool_size, stride, padding, dilation=1):
    """F.pad's argument for the last two axes of (N,C,H,W)."""
    (top, bottom), (left, right) = torch_padding(
        padding, x.shape[1:3], pair(pool_size), pair(stride), pair(dilation)
    )
    return left, right, top, bottom


def torch_max(pool_size, *, stride=None, padding=0, dilation=1, ceil_mode=False):
    stride = pool_size if stride is None else stride

    def pool(x):
        if ceil_mode:
            return nhwc(F.max_pool2d(nchw(x), pool_size, stride, padding, dilation, True))
        around = sides(x, pool_size, stride, padding, dilation)
        padded = F.pad(nchw(x), around, value=-torch.inf)
        return nhwc(F.max_pool2d(padded, pool_size, stride, 0, dilation))

    return pool


def torch_avg(pool_size, *, stride=None, padding=0, ceil_mode=False, count_include_pad=False):
    stride = pool_size if stride is None else stride

    def pool(x):
        if ceil_mode:
            return nhwc(F.avg_pool2d(nchw(x), pool_size, stride, padding, True, count_include_pad))
        around = sides(x, pool_size, stride, padding)
        mean = F.avg_pool2d(F.pad(nchw(x), around), pool_size, stride)
        if not count_include_pad:
            inside = F.pad(torch.ones_like(nchw(x)), around)
            mean = mean / F.avg_pool2d(inside, pool_size, stride)
        return nhwc(mean)

    return pool


def check_max(shape, pool_size, **options):
    x = integers(*shape)
    y = ops.max_pool2d(x, pool_size, **options)
    dy = integers(*y.shape, seed=1)
    dx = ops.max_pool2d_backward(dy, x, pool_size, **options)
    reference = torch_max(pool_size, **options)
    if shape[0] == 0:  # torch refuses an empty batch: a batch of one gives the shape
        expected = reference(torch.zeros((1, *shape[1:]))).shape
        assert y.shape == (0, *expected[1:])
        assert dx.shape == shape
    else:
        assert_like_torch(y, reference, (x,), dy=dy, gradients={0: dx}, exact=True)


def check_avg(shape, pool_size, **options):
    x = floats(*shape)
    y = ops.avg_pool2d(x, pool_size, **options)
    dy = floats(*y.shape, seed=1)
    dx = ops.avg_pool2d_backward(dy, shape, pool_size, **options)
    reference = torch_avg(pool_size, **options)
    if shape[0] == 0:
        expected = reference(torch.zeros((1, *shape[1:]))).shape
        assert y.shape == (0, *expected[1:])
        assert dx.shape == shape
    else:
        assert_like_torch(y, reference, (x,), dy=dy, gradients={0: dx}, atol=5e-7)


@pytest.mark.parametrize("channels", [*AWKWARD, 2, 8, 10, 16, 32, 64, 65, 130])
@pytest.mark.parametrize("size", [(2, 2), (5, 7), (8, 6)])
def test_windows_of_two(isa, size, channels):
    check_max((3, *size, channels), 2)
    check_avg((3, *size, channels), 2)


@pytest.mark.parametrize("channels", AWKWARD)
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_windows_of_three(isa, stride, channels):
    check_max((2, 9, 10, channels), 3, stride=stride, padding=1)
    check_avg((2, 9, 10, channels), 3, stride=stride, padding=1)


@given(pool2d_cases(), st.integers(1, 2))
def test_any_max(case, dilation):
    shape, options = case
    r, s = pair(options["pool_size"])
    if dilation * (r - 1) < shape[1] and dilation * (s - 1) < shape[2]:
        options["dilation"] = dilation
    check_max(shape, **options)


@given(pool2d_cases(), st.booleans())
def test_any_avg(case, count_include_pad):
    shape, options = case
    check_avg(shape, count_include_pad=count_include_pad, **options)


@pytest.mark.parametrize("padding", ["same", "valid", (1, 0), ((0, 1), (1, 0)), ((1, 1), (0, 1))])
@pytest.mark.parametrize("pool_size,stride", [(2, 2), (3, 2), (3, 1), ((2, 3), (3, 2)), (2, 5)])
def test_padding(pool_size, stride, padding):
    for shape in ((2, 8, 8, 5), (1, 7, 9, 19), (1, 3, 4, 1)):
        check_max(shape, pool_size, stride=stride, padding=padding)
        for count_include_pad in (False, True):
            check_avg(
                shape,
                pool_size,
                stride=stride,
                padding=padding,
                count_include_pad=count_include_pad,
            )


@pytest.mark.parametrize(
    "shape", [(3, 7, 7, 66), (2, 1, 1, 3), (1, 60, 50, 5), (2, 7, 7, 131), (1, 4, 4, 2050)]
)
def test_one_window(isa, shape):
    check_max(shape, shape[1:3])
    check_avg(shape, shape[1:3])


def test_large_windows_of_many_channels(isa):
    check_avg((2, 11, 10, 131), 5, stride=2, padding=2)
    check_avg((2, 11, 10, 131), 5, stride=5)


def test_average_of_integers_is_exact():
    x = integers(2, 9, 7, 19)
    expected = nhwc(F.avg_pool2d(nchw(torch.from_numpy(x)), 3, 2)).numpy()
    assert_exact(ops.avg_pool2d(x, 3, stride=2), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_first_of_equal_values_takes_the_gradient(isa, stride):
    x = np.zeros((1, 4, 4, 19), np.float32)
    dx = ops.max_pool2d_backward(
        np.ones_like(ops.max_pool2d(x, 2, stride=stride)), x, 2, stride=stride
    )
    expected = np.zeros_like(x)
    expected[:, : 5 - 2 : stride, : 5 - 2 : stride] = 1
    assert_exact(dx, expected)


@pytest.mark.parametrize("channels", [1, 8, 19])
def test_nan_and_infinity(isa, channels):
    x = floats(1, 6, 6, channels)
    x[0, 1, 1], x[0, 2, 2], x[0, 5, 5], x[0, 0:2, 4:6] = np.nan, -np.inf, np.inf, -np.inf
    for options in ({}, {"stride": 1}, {"padding": 1}):
        assert_like_torch(ops.max_pool2d(x, 2, **options), torch_max(2, **options), (x,))
        assert_like_torch(ops.avg_pool2d(x, 2, **options), torch_avg(2, **options), (x,))
    # The first NaN takes the gradient of its window, the first -inf of a window of nothing else.
    dy = np.ones((1, 3, 3, channels), np.float32)
    dx = ops.max_pool2d_backward(dy, x, 2)
    assert (dx[0, 1, 1] == 1).all()
    assert (dx[0, 0, 4] == 1).all()
    assert dx.sum() == dy.sum()


def test_padding_never_wins():
    x = -np.ones((1, 3, 3, 2), np.float32)
    assert_exact(ops.max_pool2d(x, 3, stride=1, padding=1), x)


@pytest.mark.parametrize("shape", [(3, 15, 17, 33), (1, 40, 41, 130), (64, 8, 8, 10)])
@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"stride": 2, "padding": 1}])
def test_same_bits_for_any_number_of_threads(shape, options):
    pool_size = 2 if not options else 3
    x = floats(*shape)
    before = _core.num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            y = ops.max_pool2d(x, pool_size, **options)
            dy = floats(*y.shape, seed=1)
            results.append(
                (
                    y,
                    ops.max_pool2d_backward(dy, x, pool_size, **options),
                    ops.avg_pool2d(x, pool_size, **options),
                    ops.avg_pool2d_backward(dy, shape, pool_size, **options),
                )
            )
    finally:
        _core.set_num_threads(before)
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            assert_exact(got, expected)


@pytest.mark.parametrize(
    "shape,pool_size,options,message",
    [
        ((1, 4, 4, 1), 5, {}, r"at least as large as the window, got H=4, 4 with padding, .* 5"),
        ((1, 4, 3, 1), 2, {"dilation": 3}, r"at least as large as the window, got W=3"),
        ((1, 4, 4, 1), 3, {"padding": 2}, r"padding of H between 0 and half the window, 1, got"),
        ((1, 4, 4, 1), 3, {"padding": (1, 2)}, r"padding of W .* 1, got \(2,2\)"),
        ((1, 4, 4, 1), 3, {"padding": -1}, r"padding of H between 0"),
        ((1, 3, 9, 1), 2, {"padding": (2, 0), "dilation": 4}, r"dilation of at most H=3"),
        ((1, 4, 4, 1), 0, {}, r"pool_size of at least 1, got \(0,0\)"),
        ((1, 4, 4, 1), 2, {"stride": 0}, r"stride of at least 1, got \(0,0\)"),
        ((1, 4, 4, 1), 2, {"dilation": 0}, r"dilation of at least 1, got \(0,0\)"),
        ((1, 4, 4, 1), 2, {"padding": "full"}, r'padding "valid", "same" or .*, got "full"'),
        ((1, 4, 4, 0), 2, {}, r"C >= 1, got x of shape \(1,4,4,0\)"),
        ((4, 4, 1), 2, {}, r"\(N,H,W,C\).*\(4,4,1\)"),
    ],
)
def test_check(shape, pool_size, options, message):
    x = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match="max_pool2d: expected .*" + message):
        ops.max_pool2d(x, pool_size, **options)
    if "dilation" not in options:
        with pytest.raises(ValueError, match="avg_pool2d: expected .*" + message):
            ops.avg_pool2d(x, pool_size, **options)
