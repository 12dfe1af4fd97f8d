"""The products of matrices behind conv2d, dense and matmul in every precision of the device under
test (tests/device_tests.py): tiles of every kind, cut sums, tails, and the first layer's few
channels. Whole numbers of few bits are exact in all of them; otherwise a factor is rounded once."""

import numpy as np
import pytest
import torch

from convlet import _core, ops
from reference import assert_exact, floats, integers, run_torch, torch_conv2d

# Half the distance between neighbours of 1: what a factor is rounded by. In float32 it is made of
# two parts of 11 bits, and of the products the one of both second parts is left out.
UNIT = {"float32": 2.0**-22, "tf32": 2.0**-11, "bfloat16": 2.0**-8}


def supported():
    for name in UNIT:
        try:
            _core.check_precision(_core.op_device(), name)
        except ValueError:
            continue
        yield name


@pytest.fixture(params=list(supported()))
def precision(request):
    _core.set_op_precision(request.param)
    yield request.param
    _core.set_op_precision("float32")


# x, w, options. By what decides: channels of 1, 3 and 4n, sums longer than a part, strides whose
# phases have no tap, groups, tails of every tile.
CONVOLUTIONS = [
    ((2, 9, 9, 1), (3, 3, 1, 32), {}),
    ((2, 9, 8, 3), (3, 3, 3, 31), {"padding": "same"}),
    ((2, 7, 6, 4), (3, 3, 4, 8), {"padding": 1}),
    ((3, 5, 7, 17), (3, 3, 17, 5), {"padding": 1}),
    ((2, 6, 7, 66), (3, 3, 66, 99), {"padding": 1, "stride": 2}),
    ((2, 8, 8, 32), (1, 1, 32, 64), {"stride": 2}),
    ((2, 12, 9, 5), (5, 2, 5, 17), {"stride": (2, 3), "dilation": (2, 3), "padding": 5}),
    ((1, 4, 4, 600), (3, 3, 600, 20), {"padding": 1}),
    ((2, 7, 9, 8), (3, 3, 2, 132), {"groups": 4, "padding": 1, "stride": 2}),
    ((2, 7, 5, 19), (3, 3, 1, 38), {"groups": 19, "stride": 2, "padding": 1}),
]


def conv2d_results(x, w, options, dy):
    y = ops.conv2d(x, w, **options)
    dy = dy(*y.shape, seed=2)
    dx = ops.conv2d_backward_input(dy, w, x.shape, **options)
    return dy, (y, dx, ops.conv2d_backward_weight(dy, x, w.shape[:2], **options))


def check_conv2d(make, assert_results, x_shape, w_shape, options):
    x, w = make(*x_shape), make(*w_shape, seed=1)
    dy, results = conv2d_results(x, w, options, make)
    assert_results(lambda x, w: torch_conv2d(x, w, **options), x, w, dy, results)


def torch_results(function, x, w, dy, dtype):
    y, (dx, dw) = run_torch(function, (x, w), dy, dtype)
    return y, dx, dw


def assert_exact_results(function, x, w, dy, results):
    expected = torch_results(function, x, w, dy, torch.float32)
    for got, value in zip(results, expected, strict=True):
        assert_exact(got, value)


def assert_rounded_results(precision):
    """|error| <= (2 u + n 2^-23) sum |product| of n terms; tensor cores cut the sums' last bits."""

    def check(function, x, w, dy, results):
        exact = torch_results(function, x, w, dy, torch.float64)
        sizes = torch_results(function, np.abs(x), np.abs(w), np.abs(dy), torch.float64)
        ones = (np.ones_like(a) for a in (x, w, dy))
        counts = torch_results(function, *ones, torch.float64)
        for got, value, size, count in zip(results, exact, sizes, counts, strict=True):
            limit = (2 * UNIT[precision] + (count + 1) * 2.0**-23) * size
            assert np.all(np.abs(got - value) <= limit)

    return check


@pytest.mark.parametrize("x,w,options", CONVOLUTIONS)
def test_convolutions_of_small_integers(precision, x, w, options):
    check_conv2d(integers, assert_exact_results, x, w, options)


@pytest.mark.parametrize("x,w,options", [CONVOLUTIONS[i] for i in (1, 4, 7)])
def test_convolutions_of_floats(precision, x, w, options):
    check_conv2d(floats, assert_rounded_results(precision), x, w, options)


@pytest.mark.parametrize("n,i,o", [(1, 5000, 10), (5, 19, 31), (70, 33, 66), (3, 64, 130)])
def test_dense(precision, n, i, o):
    x, w, dy = integers(n, i), integers(i, o, seed=1), integers(n, o, seed=2)
    assert_exact(ops.dense(x, w), x @ w)
    # The gradients are these products.
    assert_exact(ops.matmul(dy, w, transpose_b=True), dy @ w.T)
    assert_exact(ops.matmul(x, dy, transpose_a=True), x.T @ dy)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("b,m,n,k", [(3, 5, 17, 19), (2, 66, 40, 35), (1, 3, 5, 9300)])
def test_matmul(precision, transpose_a, transpose_b, b, m, n, k):
    left = integers(b, *((k, m) if transpose_a else (m, k)))
    right = integers(b, *((n, k) if transpose_b else (k, n)), seed=1)
    y = ops.matmul(left, right, transpose_a=transpose_a, transpose_b=transpose_b)
    expected = (left.mT if transpose_a else left) @ (right.mT if transpose_b else right)
    assert_exact(y, expected)


# Enough results for tiles of 128 columns (64 in float32), the last of them with tails.
@pytest.mark.parametrize("transpose_a,transpose_b", [(False, False), (False, True), (True, False)])
def test_wide_tiles(precision, transpose_a, transpose_b):
    m, n, k = 1530, 1020 if precision != "float32" else 510, 5
    left = integers(*((k, m) if transpose_a else (m, k)))
    right = integers(*((n, k) if transpose_b else (k, n)), seed=1)
    y = ops.matmul(left, right, transpose_a=transpose_a, transpose_b=transpose_b)
    assert_exact(y, (left.T if transpose_a else left) @ (right.T if transpose_b else right))


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "gelu"])
@pytest.mark.parametrize("c", [3, 100])
def test_epilogue(precision, activation, c):
    """Bias and activation are float32, whether the sum is cut into parts or not."""
    x, w, b = floats(2, 5, 4, c), floats(3, 3, c, 19, scale=0.05, seed=1), floats(19, seed=2)
    y = ops.conv2d(x, w, b, padding=1, activation=activation)
    sums = torch.from_numpy(ops.conv2d(x, w, padding=1) + b)
    expected = getattr(torch.nn.functional, activation)(sums)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
