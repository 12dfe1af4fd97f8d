"""sum, mean, max and min over axes, and their gradients, against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calls import REDUCE
from convlet import _core, ops
from graph_gradients import assert_graph_like_torch
from reference import assert_exact, assert_like_torch, floats, integers

TORCH = {
    "sum": lambda x, dim, keepdim: x.sum(dim, keepdim=keepdim),
    "mean": lambda x, dim, keepdim: x.mean(dim, keepdim=keepdim),
    "max": lambda x, dim, keepdim: x.amax(dim, keepdim=keepdim),
    "min": lambda x, dim, keepdim: x.amin(dim, keepdim=keepdim),
}


def check(name, x, axes, keepdims=False, exact=None):
    y = getattr(ops, name)(x, axes, keepdims)
    dims = tuple(range(x.ndim)) if axes is None else axes
    dims = dims if isinstance(dims, tuple) else (dims,)
    dy = integers(*y.shape, low=1, seed=2)
    dx = _core.reduce_backward(name, dy, x, y, list(dims))
    function = lambda x: TORCH[name](x, dims, keepdims) if dims else x + 0  # noqa: E731
    exact = name != "mean" if exact is None else exact
    assert_like_torch(y, function, (x,), dy=dy, exact=exact)
    assert_like_torch(None, function, (x,), dy=dy, gradients={0: dx})


CASES = [
    ((5,), 0),
    ((1,), 0),
    ((7, 19), 0),
    ((7, 19), 1),
    ((7, 19), (0, 1)),
    ((7, 19), None),
    ((3, 5, 17), (0, 2)),
    ((3, 5, 17), 1),
    ((3, 5, 17), -3),
    ((2, 7, 6, 31), (1, 2)),
    ((2, 7, 6, 66), (1, 2)),
    ((2, 3, 4, 5, 6), (0, 2, 4)),
    ((2, 3, 4, 5, 6), (1, 3)),
    ((1, 5, 1, 3), (0, 2)),
    ((100_000,), 0),
    ((3000, 17), 0),
    ((2, 40_000), 1),
    ((500, 3, 99), (0, 1)),
    ((99, 300, 3), (0, 1)),
    ((17, 7, 7, 130), (1, 2)),  # from here on, rows that are summed in wide pieces
    ((16, 131, 66), 1),
    ((5, 3, 4, 2, 577), (1, 3)),
]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("shape", "axes"), CASES)
@pytest.mark.parametrize("name", REDUCE)
def test_shapes(isa, name, shape, axes, keepdims):
    check(name, integers(*shape), axes, keepdims)


@given(st.lists(st.integers(1, 6), max_size=5), st.data(), st.sampled_from(REDUCE))
def test_any_axes(shape, data, name):
    axes = data.draw(
        st.lists(st.integers(0, len(shape) - 1), unique=True) if shape else st.just([])
    )
    if axes:
        check(name, integers(*shape), tuple(axes), data.draw(st.booleans()))


@pytest.mark.parametrize(("shape", "axes"), [((1_000_003,), 0), ((70_001, 5), 0), ((3, 50_000), 1)])
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_long_sums(isa, name, shape, axes):
    check(name, floats(*shape) + 1, axes, exact=False)


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("axis", [0, 1])
def test_nan_and_infinity(isa, name, axis):
    x = floats(9, 40)
    x[2, 3] = x[4, 39] = x[0, 0] = np.nan
    y = getattr(ops, name)(x, axis)
    assert_exact(y, TORCH[name](torch.from_numpy(x), axis, False).numpy())
    x = floats(9, 40)
    x[5, :] = np.inf
    x[6, :] = -np.inf
    check(name, x, axis)
    x = floats(17, 9, 140)
    x[3, 5, 7] = x[16, 0, 139] = np.nan
    y = getattr(ops, name)(x, 1)
    assert_exact(y, TORCH[name](torch.from_numpy(x), 1, False).numpy())


def test_nothing_to_reduce():
    empty = np.zeros((0, 3), np.float32)
    assert ops.sum(empty, 0).tolist() == [0, 0, 0]
    assert np.isnan(ops.mean(empty, 0)).all()
    assert ops.mean(empty, 1).shape == (0,)
    assert ops.max(empty, 1).shape == (0,)
    assert ops.sum(empty).shape == ()


def test_non_contiguous():
    x = integers(8, 9)[::2, ::-1]
    assert_exact(ops.sum(x, 0), x.sum(0))


@pytest.mark.parametrize(("shape", "axes"), CASES)
def test_same_bits_for_any_number_of_threads(shape, axes):
    x = floats(*shape)
    before = _core.num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            results.append(ops.sum(x, axes))
    finally:
        _core.set_num_threads(before)
    assert_exact(results[1], results[0])
    assert_exact(results[2], results[0])


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), (2,), (0, 1, 2)])
@pytest.mark.parametrize("name", REDUCE)
def test_in_a_plan(name, axes, keepdims):
    x = floats(3, 4, 5, 19)
    assert_graph_like_torch(
        lambda net, x: net.node("reduce", x, function=name, axes=list(axes), keepdims=keepdims),
        lambda x: TORCH[name](x, tuple(a + 1 for a in axes), keepdims),
        (x,),
        atol=2e-6,
    )
