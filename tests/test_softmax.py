"""softmax and log_softmax over the last axis and their gradients, against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convlet import _core, ops
from reference import AWKWARD, assert_exact, assert_like_torch, floats

OPS = {
    "softmax": (ops.softmax, ops.softmax_backward),
    "log_softmax": (ops.log_softmax, ops.log_softmax_backward),
}
TORCH = {
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
}


def check(name, x):
    forward, backward = OPS[name]
    y = forward(x)
    dy = floats(*x.shape, seed=1)
    dx = backward(dy, y)
    assert_like_torch(y, TORCH[name], (x,), dy=dy, gradients={0: dx}, atol=1e-6)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("columns", [*AWKWARD, 2, 8, 10, 16, 1000, 5001])
@pytest.mark.parametrize("rows", [(), (0,), (1,), (19,), (2, 3, 5)])
def test_shapes(isa, name, rows, columns):
    check(name, floats(*rows, columns, scale=4.0))


@pytest.mark.parametrize("name", OPS)
@given(st.integers(0, 40), st.integers(1, 120), st.sampled_from((0.01, 1.0, 30.0)))
def test_any_shape(name, rows, columns, scale):
    check(name, floats(rows, columns, scale=scale))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("columns", [3, 8, 19])
def test_special_values(isa, name, columns):
    x = floats(6, columns)
    x[0, 1] = np.nan
    x[1] = -np.inf
    x[2, 0] = np.inf
    x[3, 1:] = -np.inf
    x[4] += 1e30
    x[5, 2] = 3e38
    check(name, x)


def test_large_logits_do_not_overflow():
    x = np.array([[1e4, 1e4 - 1, -1e4]], np.float32)
    y = x.astype(np.float64) - 1e4
    y -= np.log(np.exp(y).sum())
    np.testing.assert_allclose(ops.log_softmax(x), y, rtol=3e-7)
    np.testing.assert_allclose(ops.softmax(x), np.exp(y), rtol=3e-7)


def test_rows_add_up_to_one(isa):
    p = ops.softmax(floats(200, 37, scale=10.0)).astype(np.float64)
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=5e-7)


@pytest.mark.parametrize("name", OPS)
def test_in_place(name):
    forward, backward = OPS[name]
    x, dy = floats(17, 19), floats(17, 19, seed=1)
    y = forward(x)
    dx = backward(dy, y)
    assert_exact(forward(x, out=x), y)
    assert_exact(backward(dy, y, out=dy), dx)


@pytest.mark.parametrize("name", OPS)
def test_same_bits_for_any_number_of_threads(name):
    forward, backward = OPS[name]
    x, dy = floats(999, 37), floats(999, 37, seed=1)
    before = _core.num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            y = forward(x)
            results.append((y, backward(dy, y)))
    finally:
        _core.set_num_threads(before)
    for y, dx in results[1:]:
        assert_exact(y, results[0][0])
        assert_exact(dx, results[0][1])
