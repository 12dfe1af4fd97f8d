"""dense, its gradients and its check, against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convlet import _core, ops
from reference import AWKWARD, assert_exact, assert_like_torch, floats, integers


def torch_dense(x, w, b):
    return x @ w + b


def check(n, i, o, exact=True, scale=1.0):
    make = integers if exact else floats
    x, w, b, dy = make(n, i), make(i, o, seed=1), make(o, seed=2), make(n, o, seed=3)
    dx, dw, db = ops.dense_backward(dy, x, w)
    assert_like_torch(
        ops.dense(x, w, b),
        torch_dense,
        (x, w, b),
        dy=dy,
        gradients={0: dx, 1: dw, 2: db},
        exact=exact,
        atol=1e-5,
    )
    assert_exact(ops.dense(x, w), ops.dense(x, w, np.zeros_like(b)))


@pytest.mark.parametrize("n", (0, *AWKWARD))
@pytest.mark.parametrize("i,o", [(1, 1), (3, 10), (64, 10), (17, 33), (99, 66), (300, 31)])
def test_awkward_sizes(isa, n, i, o):
    check(n, i, o)


# Sums cut into parts and stretches, many rows, wide results.
@pytest.mark.parametrize(
    "n,i,o", [(5, 5000, 3), (1, 4100, 130), (13, 40000, 7), (1300, 19, 31), (7, 3, 700)]
)
def test_large_sizes(isa, n, i, o):
    check(n, i, o)


@given(st.integers(0, 40), st.integers(1, 300), st.integers(1, 150))
def test_any_shape(n, i, o):
    check(n, i, o)


@pytest.mark.parametrize("n,i,o", [(32, 576, 64), (32, 64, 10), (3, 9000, 20), (600, 50, 30)])
def test_accuracy(isa, n, i, o):
    check(n, i, o, exact=False)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "gelu", "silu", "elu", "hard_swish"])
@pytest.mark.parametrize("i", [20, 5000])
def test_fused_activation(isa, name, i):
    x, w, b = floats(7, i), floats(i, 19, scale=i**-0.5, seed=1), floats(19, seed=2)
    got = ops.dense(x, w, b, activation=name)
    assert_exact(got, getattr(ops, name)(ops.dense(x, w, b)))
    function = getattr(torch.nn.functional, {"hard_swish": "hardswish"}.get(name, name))
    assert_like_torch(got, lambda *args: function(torch_dense(*args)), (x, w, b), atol=2e-6)


@pytest.mark.parametrize("n,i,o", [(32, 5000, 64), (1, 3000, 300), (700, 33, 17), (2000, 64, 10)])
def test_same_bits_for_any_number_of_threads(n, i, o):
    x, w, b, dy = floats(n, i), floats(i, o, seed=1), floats(o, seed=2), floats(n, o, seed=3)
    before = _core.num_threads()
    try:
        results = []
        for threads in (1, 2, 5, 1):
            _core.set_num_threads(threads)
            results.append((ops.dense(x, w, b), *ops.dense_backward(dy, x, w)))
    finally:
        _core.set_num_threads(before)
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            assert_exact(got, expected)


@pytest.mark.parametrize(
    "x,w,b,message",
    [
        ((2, 3, 4), (4, 5), (5,), r"expected x .*\(N,I\), got .*\(2,3,4\)"),
        ((2, 4), (4,), (5,), r"expected weight .*\(I,O\), got .*\(4,\)"),
        ((2, 4), (5, 4), (4,), r"expected weight \(I,O\) with I=4 .*\(2,4\), got weight \(5,4\)"),
        ((2, 0), (0, 4), (4,), r"I >= 1, got x of shape \(2,0\)"),
        ((2, 4), (4, 0), (0,), r"O >= 1, got weight of shape \(4,0\)"),
        ((2, 4), (4, 5), (4,), r"expected bias .*\(5,\), got .*\(4,\)"),
    ],
)
def test_check(x, w, b, message):
    x, w, b = (np.zeros(shape, np.float32) for shape in (x, w, b))
    with pytest.raises(ValueError, match="dense: .*" + message):
        ops.dense(x, w, b)
