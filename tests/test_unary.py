"""exp, log, sqrt and their like, against torch."""

import numpy as np
import pytest
import torch

from calls import UNARY
from convlet import _core, ops
from graph_gradients import assert_graph_like_torch
from reference import AWKWARD, assert_exact, assert_like_torch, floats

TORCH = {name: getattr(torch, name) for name in UNARY}
FROM_OUTPUT = ("exp", "sqrt", "rsqrt", "reciprocal")
POSITIVE = ("log", "log1p", "sqrt", "rsqrt", "reciprocal")


def check(name, x):
    y = np.asarray(getattr(ops, name)(x))
    dy = np.asarray(floats(*x.shape, seed=1))
    dx = _core.unary_backward(name, dy, y if name in FROM_OUTPUT else x, None)
    assert_like_torch(y, TORCH[name], (x,), dy=dy, gradients={0: dx}, atol=1e-6)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(0,), *[(n,) for n in AWKWARD], (3, 4, 5), (2, 3, 4, 5), ()])
def test_shapes(isa, name, shape):
    x = np.asarray(floats(*shape, scale=2.0))
    if name in POSITIVE:
        np.add(np.abs(x), np.float32(0.1), out=x)
    check(name, x)


@pytest.mark.parametrize("name", UNARY)
def test_special_values(isa, name):
    x = np.float32([0, -0.0, 1e-45, 1e-30, 1, -1, 3e38, -3e38, np.inf, -np.inf, np.nan, 0.5])
    x = np.concatenate([x, x[::-1], x])
    y = getattr(ops, name)(x)
    exact = TORCH[name](torch.from_numpy(x.astype(np.float64))).numpy()
    if name == "sign":  # NaN stays, as in numpy
        exact = np.sign(x)
    with np.errstate(over="ignore"):
        expected = exact.astype(np.float32)
    np.testing.assert_allclose(y, expected, rtol=3e-7, atol=1e-45)


@pytest.mark.parametrize("name", ["log1p", "log", "exp"])
def test_relative_accuracy(isa, name):
    x = np.concatenate([np.geomspace(1e-30, 80, 20001), -np.geomspace(1e-30, 0.99, 20001)])
    x = (np.abs(x) if name == "log" else x).astype(np.float32)
    exact = TORCH[name](torch.from_numpy(x.astype(np.float64))).numpy()
    units = np.abs(getattr(ops, name)(x) - exact) / np.spacing(np.abs(exact).astype(np.float32))
    assert units.max() <= 3


@pytest.mark.parametrize("name", UNARY)
def test_in_a_plan(name):
    x = floats(5, 3, 7)
    x = np.abs(x) + np.float32(0.2) if name in POSITIVE else x
    assert_graph_like_torch(
        lambda net, x: net.node("unary", x, function=name), TORCH[name], (x,), atol=1e-5
    )


def test_same_bits_for_any_number_of_threads(threads):
    x = np.abs(floats(100_003)) + 1
    before = _core.num_threads()
    _core.set_num_threads(1)
    expected = ops.log1p(x)
    _core.set_num_threads(before)
    assert_exact(ops.log1p(x), expected)
