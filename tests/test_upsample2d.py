"""Upsampling, nearest and bilinear, forward and backward, against torch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convlet import _core, ops
from graph_gradients import assert_graph_like_torch
from nets import Net
from reference import (
    AWKWARD,
    assert_exact,
    assert_like_torch,
    channels,
    floats,
    integers,
    nchw,
    nhwc,
)

WAYS = ("nearest", "bilinear")


def torch_upsample(size, interpolation):
    options = {} if interpolation == "nearest" else {"align_corners": False}
    size = (size, size) if isinstance(size, int) else size

    def function(x):
        y = torch.nn.functional.interpolate(
            nchw(x),
            size=(x.shape[1] * size[0], x.shape[2] * size[1]),
            mode=interpolation,
            **options,
        )
        return nhwc(y)

    return function


def check(shape, size, interpolation):
    x = integers(*shape)
    y = ops.upsample2d(x, size, interpolation=interpolation)
    dy = integers(*y.shape, seed=1)
    dx = ops.upsample2d_backward(dy, size, interpolation=interpolation)
    sizes = (size, size) if isinstance(size, int) else size
    # Shares are powers of two then.
    exact = interpolation == "nearest" or all(n in (1, 2, 4) for n in sizes)
    if shape[0] == 0:
        assert (y.size, dx.shape) == (0, tuple(shape))
        return
    function = torch_upsample(size, interpolation)
    assert_like_torch(y, function, (x,), dy=dy, gradients={0: dx}, exact=exact, atol=2e-6)


@pytest.mark.parametrize("interpolation", WAYS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, (1, 3), (5, 2)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 1), (1, 1, 7, 17), (0, 2, 2, 3)])
def test_sizes(isa, shape, size, interpolation):
    check(shape, size, interpolation)


@pytest.mark.parametrize("interpolation", WAYS)
@pytest.mark.parametrize("c", AWKWARD)
def test_channels(isa, c, interpolation):
    check((2, 4, 3, c), 2, interpolation)


@given(
    st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), channels),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from(WAYS),
)
def test_any_shape(shape, size, interpolation):
    check(shape, size, interpolation)


@pytest.mark.parametrize("interpolation", WAYS)
def test_same_bits_for_any_number_of_threads(interpolation):
    x = floats(3, 20, 21, 19)
    before = _core.num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            y = ops.upsample2d(x, 3, interpolation=interpolation)
            results.append((y, ops.upsample2d_backward(y, 3, interpolation=interpolation)))
    finally:
        _core.set_num_threads(before)
    for y, dx in results[1:]:
        assert_exact(y, results[0][0])
        assert_exact(dx, results[0][1])


@pytest.mark.parametrize("interpolation", WAYS)
def test_in_a_plan(interpolation):
    assert_graph_like_torch(
        lambda net, x: net.node("upsample2d", x, size=[2, 3], interpolation=interpolation),
        torch_upsample((2, 3), interpolation),
        (floats(4, 3, 5, 6),),
    )


def test_errors_name_the_node():
    net = Net()
    x, row = net.input(4, 5, 3), net.input(4)
    for value, options, message in (
        (x, {"size": [0, 2]}, r"upsample2d0: expected size of at least 1, got \(0,2\)"),
        (x, {"size": [2, 2], "interpolation": "cubic"}, 'interpolation "nearest" or .* "cubic"'),
        (x, {"size": [2]}, "attribute 'size': expected 2 integers, got 1"),
        (row, {"size": [2, 2]}, r"upsample2d0: upsample2d expected samples of shape \(H,W,C\)"),
    ):
        with pytest.raises(ValueError, match=message):
            net.node("upsample2d", value, **options)
