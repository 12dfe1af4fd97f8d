"""Kernels of precision bfloat16: factors rounded to bfloat16, all else float32. Where the machine
lacks the instructions the same bodies run on emulated ones."""

import platform

import numpy as np
import pytest
import torch

from convlet import _core, ops
from reference import assert_exact, floats, integers, run_torch, torch_conv2d

# N, H, W, C, K, R, S, and options: all of them convolutions that take bfloat16 in every pass.
CONVOLUTIONS = [
    (2, 8, 8, 16, 64, 3, 3, {"padding": 1}),
    (3, 9, 7, 17, 66, 3, 3, {"padding": 1, "stride": 2}),
    (5, 7, 6, 99, 31, 3, 3, {}),
    (4, 12, 5, 32, 99, 1, 1, {}),
    (3, 9, 9, 35, 131, 1, 1, {"stride": 2}),
    (2, 11, 11, 8, 33, 5, 3, {"padding": ((3, 1), (0, 2)), "stride": (2, 1)}),
    (3, 10, 10, 20, 32, 3, 3, {"padding": 2, "dilation": 2, "groups": 2}),
    (33, 4, 4, 40, 24, 3, 3, {"padding": "same"}),
    (2, 17, 3, 66, 17, 9, 1, {"padding": ((4, 4), (0, 0))}),
]
DENSE = [(16, 16, 16), (17, 19, 31), (33, 99, 66), (64, 4200, 17), (530, 31, 130)]


def native():
    """Whether the CPU has the instructions, though they may not pay."""
    _core.set_bfloat16("native")
    try:
        _core.check_precision("cpu", "bfloat16")
    except ValueError:
        return False
    finally:
        _core.set_bfloat16("measured")
    return True


SOURCES = [*(f"emulated {isa}" for isa in _core.supported_isas()), *(["native"] * native())]


@pytest.fixture(params=SOURCES)
def bfloat16(request):
    """Runs the test's functional ops in bfloat16."""
    before = _core.isa()
    source, _, isa = request.param.partition(" ")
    _core.set_bfloat16(source)
    _core.set_isa(isa or before)
    _core.set_op_precision("bfloat16")
    yield
    _core.set_op_precision("float32")
    _core.set_isa(before)
    _core.set_bfloat16("measured")


def in_float32(function, *arguments, **options):
    _core.set_op_precision("float32")
    result = function(*arguments, **options)
    _core.set_op_precision("bfloat16")
    return result


def rounded(x):
    """x as bfloat16 numbers, by torch."""
    return torch.from_numpy(x).bfloat16().float().numpy()


def conv2d(x, w, dy, options):
    """y, dx, dw; dy is a function of y's shape."""
    y = ops.conv2d(x, w, **options)
    dy = dy(*y.shape)
    dx = ops.conv2d_backward_input(dy, w, x.shape, **options)
    return dy, (y, dx, ops.conv2d_backward_weight(dy, x, w.shape[:2], **options))


def dense(x, w, dy):
    y = ops.dense(x, w)
    dy = dy(*y.shape)
    dx, dw, _ = ops.dense_backward(dy, x, w)
    return dy, (y, dx, dw)


def torch_results(function, x, w, dy, dtype):
    y, (dx, dw) = run_torch(function, (x, w), dy, dtype)
    return y, dx, dw


def assert_rounded_sums(function, x, w, dy, results):
    """Each result is a sum of products of rounded factors, added in float32, for which
    |error| <= terms * 2^-24 * sum |product|."""
    x, w, dy = rounded(x), rounded(w), rounded(dy)
    exact = torch_results(function, x, w, dy, torch.float64)
    sizes = torch_results(function, np.abs(x), np.abs(w), np.abs(dy), torch.float64)
    ones = (np.ones_like(a) for a in (x, w, dy))
    counts = torch_results(function, *ones, torch.float64)
    for got, value, size, count in zip(results, exact, sizes, counts, strict=True):
        assert np.all(np.abs(got - value) <= (count + 1) * 2.0**-24 * size)


# The last is depthwise: by the width of vectors its gradient alone may take bfloat16.
@pytest.mark.parametrize("case", [*CONVOLUTIONS, (2, 9, 8, 3, 24, 6, 6, {"groups": 3})])
def test_convolutions_of_small_integers_are_exact(bfloat16, case):
    n, h, w, c, k, r, s, options = case
    x, weight = integers(n, h, w, c), integers(r, s, c // options.get("groups", 1), k, seed=1)
    dy, results = conv2d(x, weight, lambda *shape: integers(*shape, seed=2), options)
    expected = torch_results(
        lambda x, w: torch_conv2d(x, w, **options), x, weight, dy, torch.float32
    )
    for got, value in zip(results, expected, strict=True):
        assert_exact(got, value)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions_round_their_factors_and_nothing_else(bfloat16, case):
    n, h, w, c, k, r, s, options = case
    x, weight = floats(n, h, w, c), floats(r, s, c // options.get("groups", 1), k, seed=1)
    dy, results = conv2d(x, weight, lambda *shape: floats(*shape, seed=2), options)
    assert_rounded_sums(lambda x, w: torch_conv2d(x, w, **options), x, weight, dy, results)


@pytest.mark.parametrize("n,i,o", DENSE)
def test_dense_of_small_integers_is_exact(bfloat16, n, i, o):
    x, w = integers(n, i), integers(i, o, seed=1)
    dy, results = dense(x, w, lambda *shape: integers(*shape, seed=2))
    expected = torch_results(torch.matmul, x, w, dy, torch.float32)
    for got, value in zip(results, expected, strict=True):
        assert_exact(got, value)


@pytest.mark.parametrize("n,i,o", DENSE)
def test_dense_rounds_its_factors_and_nothing_else(bfloat16, n, i, o):
    x, w = floats(n, i), floats(i, o, seed=1)
    dy, results = dense(x, w, lambda *shape: floats(*shape, seed=2))
    assert_rounded_sums(torch.matmul, x, w, dy, results)


def test_bias_and_activation_are_float32(bfloat16):
    x, w, b = floats(3, 6, 6, 16), floats(3, 3, 16, 20, seed=1), floats(20, seed=2)
    y = ops.conv2d(x, w, b, activation="relu")
    np.testing.assert_allclose(y, np.maximum(ops.conv2d(x, w) + b, 0), rtol=1e-5, atol=1e-5)
    x, w = floats(17, 40), floats(40, 20, seed=1)
    y = ops.dense(x, w, b, activation="tanh")
    np.testing.assert_allclose(y, np.tanh(ops.dense(x, w) + b), rtol=1e-5, atol=1e-5)


TINY, HUGE = np.float32(2.0**-126), np.finfo(np.float32).max
SPECIAL = np.array(
    [
        *(1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-20, -1 - 2.0**-8, 1.25, 0.1, -0.0),
        *(TINY, -TINY, TINY * (1 - 2.0**-20), 2.0**-140, HUGE, -HUGE, HUGE * (1 - 2.0**-8)),
        *(np.inf, -np.inf, np.nan),
    ],
    np.float32,
)


def test_values_are_rounded_to_nearest_even_and_tiny_ones_are_zero(bfloat16):
    """Each value alone in its row, times one."""
    n = len(SPECIAL)
    x, w = np.zeros((n, 16), np.float32), np.zeros((16, 16), np.float32)
    w[3:5] = 1
    expected = rounded(np.where(np.abs(SPECIAL) < TINY, 0, SPECIAL))
    for column in (3, 4):  # the second and the first of a pair
        x[:] = 0
        x[:, column] = SPECIAL
        np.testing.assert_array_equal(ops.dense(x, w), np.repeat(expected[:, None], 16, 1))


@pytest.mark.parametrize(
    "n,c,k,window,options",
    [
        (4, 1, 32, 3, {"padding": 1}),
        (4, 3, 64, 3, {}),
        (2, 16, 16, 3, {"padding": 1, "groups": 16}),
        (2, 15, 30, 3, {"groups": 5}),
    ],
)
def test_layers_where_it_does_not_pay_stay_in_float32(bfloat16, n, c, k, window, options):
    groups = options.get("groups", 1)
    x, w = floats(n, 9, 8, c), floats(window, window, c // groups, k, seed=1)
    make = lambda *shape: floats(*shape, seed=2)  # noqa: E731
    dy, (y, dx, dw) = conv2d(x, w, make, options)
    _, expected = in_float32(conv2d, x, w, make, options)
    assert_exact(y, expected[0])
    assert_exact(dx, expected[1])
    assert_exact(dw, expected[2])


def test_a_few_samples_of_a_dense_layer_stay_in_float32(bfloat16):
    x, w = floats(15, 64), floats(64, 32, seed=1)
    assert_exact(ops.dense(x, w), in_float32(ops.dense, x, w))


def test_empty_batches(bfloat16):
    x, w = floats(0, 8, 8, 16), floats(3, 3, 16, 32)
    assert ops.conv2d(x, w).shape == (0, 6, 6, 32)
    dy = np.zeros((0, 6, 6, 32), np.float32)
    assert ops.conv2d_backward_input(dy, w, x.shape).shape == x.shape
    assert_exact(ops.conv2d_backward_weight(dy, x, (3, 3)), np.zeros_like(w))
    assert ops.dense(floats(0, 16), floats(16, 16)).shape == (0, 16)


@pytest.mark.parametrize("case", [CONVOLUTIONS[1], CONVOLUTIONS[7], (130, 8, 8, 64, 64, 3, 3, {})])
def test_the_same_bits_with_any_number_of_threads(bfloat16, case):
    n, h, w, c, k, r, s, options = case
    x, weight = floats(n, h, w, c), floats(r, s, c, k, seed=1)
    rows, matrix = floats(n, 1000), floats(1000, 66, seed=1)
    before, all_results = _core.num_threads(), []
    for threads in (1, 2, 5):
        _core.set_num_threads(threads)
        make = lambda *shape: floats(*shape, seed=2)  # noqa: E731
        all_results.append(conv2d(x, weight, make, options)[1] + dense(rows, matrix, make)[1])
    _core.set_num_threads(before)
    for results in all_results[1:]:
        for got, first in zip(results, all_results[0], strict=True):
            assert_exact(got, first)


def test_the_native_table_is_made_of_the_instruction():
    """VDPBF16PS with its EVEX prefix, in the module where its table is compiled."""
    code = np.fromfile(_core.__file__, np.uint8)
    prefix, map_of_opcode, kind, opcode = (code[i : len(code) - 5 + i] for i in (0, 1, 2, 4))
    f3_without_w = (kind & 0x87) == 0x06
    found = (prefix == 0x62) & (map_of_opcode & 7 == 2) & f3_without_w & (opcode == 0x52)
    expected = platform.machine() == "x86_64"
    assert (np.count_nonzero(found) > 500) == expected
