"""conv2d, its three gradients and its check, against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given

from convlet import _core, ops
from reference import (
    assert_exact,
    assert_like_torch,
    conv2d_cases,
    floats,
    integers,
    pair,
    torch_conv2d,
    torch_padding,
)

ACTIVATIONS = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "relu6": torch.nn.functional.relu6,
    "hard_swish": torch.nn.functional.hardswish,
}


def output_shape(x, weight, stride=1, padding=0, dilation=1, groups=1):
    """The shape of y, from the formula."""
    stride, dilation = pair(stride), pair(dilation)
    pads = torch_padding(padding, x[1:3], weight[:2], stride, dilation)
    p, q = (
        (x[1 + i] + sum(pads[i]) - dilation[i] * (weight[i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    )
    return x[0], p, q, weight[3]


def run(x, w, b, dy, options):
    """(y, dx, dw, db) by convlet."""
    return (
        ops.conv2d(x, w, b, **options),
        ops.conv2d_backward_input(dy, w, x.shape, **options),
        ops.conv2d_backward_weight(dy, x, w.shape[:2], **options),
        ops.conv2d_backward_bias(dy),
    )


def check(x_shape, w_shape, options, exact=True):
    """Compares forward and all gradients with torch's."""
    make = integers if exact else floats
    x, w, b = make(*x_shape), make(*w_shape, seed=1), make(w_shape[3], seed=2)
    dy = make(*output_shape(x_shape, w_shape, **options), seed=3)
    y, dx, dw, db = run(x, w, b, dy, options)
    if x_shape[0] == 0:  # torch refuses some empty batches
        assert y.shape == dy.shape
        assert dx.shape == x.shape
        assert_exact(dw, np.zeros_like(w))
        assert_exact(db, np.zeros_like(b))
        return
    assert_like_torch(
        y,
        lambda x, w, b: torch_conv2d(x, w, b, **options),
        (x, w, b),
        dy=dy,
        gradients={0: dx, 1: dw, 2: db},
        exact=exact,
        atol=1e-5,
    )


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (17, 19), (31, 7)])
@pytest.mark.parametrize("channels", [(1, 1), (3, 31), (17, 5), (33, 66), (66, 99)])
def test_awkward_sizes(isa, size, channels):
    c, k = channels
    check((3, *size, c), (3, 3, c, k), {"padding": 1})


@pytest.mark.parametrize("window", [(1, 1), (1, 3), (5, 2), (7, 7), (9, 9)])
@pytest.mark.parametrize("stride", [1, (2, 3), (4, 1)])
@pytest.mark.parametrize("dilation", [1, (2, 3)])
def test_windows(window, stride, dilation):
    options = {"stride": stride, "dilation": dilation, "padding": ((3, 1), (0, 5))}
    check((2, 23, 27, 5), (*window, 5, 17), options)


@pytest.mark.parametrize("size", [(5, 1, 1), (3, 17, 19), (9, 7, 5), (1, 31, 2)])
@pytest.mark.parametrize("channels", [(1, 1), (17, 5), (5, 31), (33, 48), (99, 66), (208, 3)])
@pytest.mark.parametrize("stride", [1, (2, 3)])
def test_pointwise(isa, size, channels, stride):
    c, k = channels
    check((*size, c), (1, 1, c, k), {"stride": stride})


# Maps of more than a million values: what the next block reads is asked for meanwhile.
@pytest.mark.parametrize(
    "x,w,options",
    [
        ((3, 57, 59, 40), (1, 1, 40, 96), {}),
        ((3, 60, 61, 99), (1, 1, 99, 48), {"stride": (1, 2)}),
        ((3, 90, 70, 5), (3, 3, 5, 64), {"padding": 1}),
        ((4, 199, 198, 3), (7, 7, 3, 24), {"padding": 3, "stride": 2}),
    ],
)
def test_large_maps(isa, x, w, options):
    check(x, w, options)


@pytest.mark.parametrize("padding", ["same", "valid", 0, 2, (1, 3), ((0, 2), (3, 1)), 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(9, 12), (10, 3)])
def test_padding(padding, stride, size):
    check((2, *size, 6), (3, 2, 6, 9), {"stride": stride, "padding": padding})


@pytest.mark.parametrize("groups,c,k", [(2, 6, 4), (3, 3, 51), (4, 8, 132), (5, 35, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_groups(isa, groups, c, k, stride):
    options = {"groups": groups, "stride": stride, "padding": 1}
    check((2, 7, 9, c), (3, 3, c // groups, k), options)


@pytest.mark.parametrize("c", [1, 3, 19, 66])
@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize(
    "options", [{"padding": "same"}, {"stride": 2, "padding": 1}, {"dilation": 2}]
)
def test_depthwise(isa, c, multiplier, options):
    check((2, 9, 11, c), (3, 3, 1, c * multiplier), {"groups": c, **options})


@pytest.mark.parametrize("window", [(1, 3), (3, 1), (3, 3), (5, 5), (2, 7), (9, 9)])
@pytest.mark.parametrize("stride", [1, 2, (1, 2), (2, 1)])
@pytest.mark.parametrize("padding", ["same", 0, ((0, 1), (1, 0)), 2])
def test_depthwise_windows(window, stride, padding):
    options = {"groups": 37, "stride": stride, "padding": padding}
    for multiplier, size in ((1, (14, 9)), (1, (9, 18)), (2, (10, 9))):
        check((2, *size, 37), (*window, 1, 37 * multiplier), options)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 1), (7, 7), (17, 31)])
@pytest.mark.parametrize("c", [17, 31, 99, 256])
def test_depthwise_sizes(isa, size, c):
    check((3, *size, c), (3, 3, 1, c), {"groups": c, "padding": 1})


@pytest.mark.parametrize("padding", [0, 1, ((0, 1), (0, 1))])
@pytest.mark.parametrize("stride", [2, (1, 2), (3, 2)])
def test_depthwise_with_strides_of_large_images(isa, stride, padding):
    """These are copied first."""
    check((2, 49, 61, 45), (3, 3, 1, 45), {"groups": 45, "padding": padding, "stride": stride})


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_larger_than_the_cache(stride):
    check((1, 183, 182, 260), (3, 3, 1, 260), {"groups": 260, "padding": 1, "stride": stride})


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid"])
def test_depthwise_results_past_the_cache(isa, stride, activation):
    """Stored so in whole lines, with these channels; the bits are those of a part of the batch."""
    options = {"groups": 48, "padding": 1, "stride": stride}
    x, w = integers(4, 75 * stride, 311, 48), integers(3, 3, 1, 48, seed=1)
    y = ops.conv2d(x, w, activation=activation, **options)
    dy = integers(*y.shape, seed=2)
    dx = ops.conv2d_backward_input(dy, w, x.shape, **options)
    assert (y.ctypes.data % 64, dx.ctypes.data % 64) == (0, 0)
    for n in range(len(x)):
        assert_exact(y[n : n + 1], ops.conv2d(x[n : n + 1], w, activation=activation, **options))
        part = ops.conv2d_backward_input(dy[n : n + 1], w, (1, *x.shape[1:]), **options)
        assert_exact(dx[n : n + 1], part)


@given(conv2d_cases())
def test_any_shape(case):
    check(*case)


@pytest.mark.parametrize(
    "x,w,options",
    [
        ((4, 32, 32, 3), (3, 3, 3, 32), {}),
        ((4, 14, 14, 32), (3, 3, 32, 64), {"padding": "same"}),
        ((2, 6, 6, 200), (3, 3, 200, 130), {"padding": 1, "stride": 2}),
        ((2, 9, 9, 48), (3, 3, 1, 48), {"padding": 1, "groups": 48}),
        ((1, 56, 56, 64), (1, 1, 64, 64), {}),
    ],
)
def test_accuracy(isa, x, w, options):
    check(x, w, options, exact=False)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_fused_activation(isa, name):
    # Two vectors and a tail; sums both long enough to be cut in stretches and not.
    for c, k in ((3, 5), (5, 35), (66, 17)):
        x, w, b = floats(2, 9, 8, c), floats(3, 3, c, k, scale=0.2, seed=1), floats(k, seed=2)
        y = ops.conv2d(x, w, b, padding=1, activation=name)
        assert_exact(y, getattr(ops, name)(ops.conv2d(x, w, b, padding=1)))
        assert_like_torch(
            y,
            lambda x, w, b: ACTIVATIONS[name](torch_conv2d(x, w, b, padding=1)),
            (x, w, b),
            atol=2e-6,
        )


def test_not_a_number_reaches_just_its_windows():
    x, w = floats(1, 6, 6, 3), floats(3, 3, 3, 17, seed=1)
    x[0, 1, 2, 1] = np.nan
    x[0, 5, 5, 0] = np.inf
    got = ops.conv2d(x, w, padding=1, activation="relu")
    expected = torch.relu(torch_conv2d(torch.from_numpy(x), torch.from_numpy(w), padding=1)).numpy()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))


@pytest.mark.parametrize(
    "x,w,options",
    [
        ((5, 12, 12, 17), (3, 3, 17, 35), {"padding": 1}),
        ((1, 40, 30, 8), (3, 3, 8, 16), {"padding": 1}),
        ((3, 13, 13, 130), (3, 3, 130, 66), {"stride": 2, "padding": "same"}),
        ((6, 9, 9, 24), (3, 3, 1, 24), {"padding": 1, "groups": 24}),
        ((1, 40, 30, 66), (3, 3, 1, 66), {"padding": 1, "groups": 66}),
        ((3, 14, 14, 40), (7, 7, 1, 40), {"padding": 3, "groups": 40}),
        ((3, 49, 61, 45), (3, 3, 1, 45), {"padding": 1, "groups": 45, "stride": 2}),
        ((1, 4, 4, 256), (1, 1, 256, 256), {}),
        ((3, 57, 59, 40), (1, 1, 40, 96), {}),
    ],
)
def test_same_bits_for_any_number_of_threads(x, w, options):
    x, w, b = floats(*x), floats(*w, seed=1), floats(w[3], seed=2)
    dy = floats(*output_shape(x.shape, w.shape, **options), seed=3)
    before = _core.num_threads()
    try:
        results = []
        for threads in (1, 2, 5, 1):
            _core.set_num_threads(threads)
            results.append(run(x, w, b, dy, options))
    finally:
        _core.set_num_threads(before)
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            assert_exact(got, expected)


def test_bias_gradient_of_many_pixels():
    dy = floats(4, 100, 100, 7) + 1
    exact = dy.astype(np.float64).sum((0, 1, 2))
    np.testing.assert_allclose(ops.conv2d_backward_bias(dy), exact, rtol=1e-6)


GOOD = {"x": (2, 8, 8, 3), "weight": (3, 3, 3, 8)}


@pytest.mark.parametrize(
    "change,message",
    [
        ({"x": (8, 8, 3)}, r"expected x .*\(N,H,W,C\), got .*\(8,8,3\)"),
        ({"x": (2, 8, 0, 3)}, r"H, W, C >= 1, got x of shape \(2,8,0,3\)"),
        ({"weight": (3, 3, 8)}, r"expected weight .*\(R,S,C/groups,K\), got .*\(3,3,8\)"),
        ({"weight": (3, 0, 3, 8)}, r"sizes of at least 1, got weight of shape \(3,0,3,8\)"),
        (
            {"weight": (3, 3, 4, 8)},
            r"expected weight \(R,S,C/groups,K\) with C/groups=3 to match x \(N,H,W,C\)="
            r"\(2,8,8,3\), got weight \(3,3,4,8\)",
        ),
        ({"groups": 2}, r"groups to divide the 3 channels .*got groups=2"),
        ({"groups": 3, "weight": (3, 3, 1, 8)}, r"groups to divide the K=8 .*got groups=3"),
        ({"groups": 0}, r"groups of at least 1, got 0"),
        ({"stride": 0}, r"stride of at least 1, got \(0,0\)"),
        ({"stride": (1, -2)}, r"stride of at least 1, got \(1,-2\)"),
        ({"dilation": 0}, r"dilation of at least 1, got \(0,0\)"),
        ({"dilation": 2**62}, r"dilation of at most 2\^47"),
        ({"dilation": 2**47}, r"at most 2\^47"),
        ({"padding": -1}, r"padding .*-1"),
        ({"padding": 2**45}, r"at most 2\^47"),
        ({"padding": "full"}, r"padding .*\"?valid\"?.*full"),
        (
            {"weight": (9, 3, 3, 8)},
            r"as large as the window, got x \(H,W\)=\(8,8\).*window of \(9,3\)",
        ),
        ({"dilation": 4}, r"as large as the window, got x \(H,W\)=\(8,8\).*window of \(9,9\)"),
    ],
)
def test_check(change, message):
    arguments = {**GOOD, **change}
    x, w = np.zeros(arguments.pop("x"), np.float32), np.zeros(arguments.pop("weight"), np.float32)
    with pytest.raises(ValueError, match="conv2d: " + r".*" + message):
        ops.conv2d(x, w, **arguments)


def test_check_of_gradients():
    x, w, dy = np.zeros((2, 8, 8, 3)), np.zeros((3, 3, 3, 8)), np.zeros((2, 6, 6, 7))
    x, w, dy = (a.astype(np.float32) for a in (x, w, dy))
    with pytest.raises(ValueError, match=r"conv2d_backward_input: expected dy .*\(2,6,6,8\)"):
        ops.conv2d_backward_input(dy, w, x.shape)
    with pytest.raises(ValueError, match=r"conv2d_backward_weight: expected dy .*\(2,5,7"):
        ops.conv2d_backward_weight(dy, x, (4, 2))
