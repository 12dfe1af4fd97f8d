"""Activations and their gradients, against torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convlet import _core, ops
from reference import AWKWARD, assert_exact, assert_like_torch, error, floats

FROM_INPUT = ("gelu", "silu", "hard_sigmoid", "hard_swish")
TORCH = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "hard_sigmoid": F.hardsigmoid,
    "hard_swish": F.hardswish,
}
NAMES = tuple(TORCH)


def forward(name, x, **options):
    return getattr(ops, name)(x, **options)


def backward(name, dy, x, y, **options):
    return getattr(ops, name + "_backward")(dy, x if name in FROM_INPUT else y, **options)


def check(name, x):
    y = forward(name, x)
    dy = floats(*x.shape, seed=1)
    dx = backward(name, dy, x, y)
    assert_like_torch(y, TORCH[name], (x,), dy=dy, gradients={0: dx}, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(0,), *[(n,) for n in AWKWARD], (3, 4, 5), (2, 3, 4, 5), ()])
def test_shapes(isa, name, shape):
    check(name, floats(*shape, scale=3.0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("low,high", [(-1e-3, 1e-3), (-1, 1), (-6, 6), (-30, 30), (-150, 150)])
def test_accuracy(isa, name, low, high):
    x = np.linspace(low, high, 20001, dtype=np.float32)
    exact = TORCH[name](torch.from_numpy(x.astype(np.float64))).numpy()
    scale = np.abs(exact).max()
    check(name, x)
    assert error(forward(name, x), exact) <= 3e-7 * scale


def units_in_the_last_place(got, exact):
    """The error, in units of the last place of the exact value rounded to float32."""
    return np.abs(got - exact) / np.spacing(np.abs(exact).astype(np.float32))


@pytest.mark.parametrize(
    "name,low,high,most",
    [
        ("sigmoid", -100, 30, 3),
        ("tanh", -12, 12, 2),
        ("silu", -80, 80, 4),
        ("elu", -80, 3, 3),
        ("softplus", -80, 80, 4),
    ],
)
def test_relative_accuracy(isa, name, low, high, most):
    x = np.linspace(low, high, 100001, dtype=np.float32)
    exact = TORCH[name](torch.from_numpy(x.astype(np.float64))).numpy()
    assert units_in_the_last_place(forward(name, x), exact).max() <= most


def test_gelu_keeps_its_tail(isa):
    x = np.linspace(-5, -1, 10001, dtype=np.float32)
    z = torch.from_numpy(x.astype(np.float64))
    exact = (z * torch.special.erfc(-z / 2**0.5) / 2).numpy()
    assert (np.abs(ops.gelu(x) / exact - 1)).max() < 2e-6
    far = np.linspace(-40, -5, 10001, dtype=np.float32)
    z = torch.from_numpy(far.astype(np.float64))
    y = ops.gelu(far)
    assert error(y, (z * torch.special.erfc(-z / 2**0.5) / 2).numpy()) < 4e-12
    assert (y <= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_special_values(isa, name):
    tiny = np.float32(1e-45)
    x = np.array(
        [0.0, -0.0, tiny, -tiny, 88.5, 89.5, -88.5, -103.5, 3e38, -3e38, np.inf, -np.inf, np.nan],
        np.float32,
    )
    x = np.concatenate([x, x[::-1], x])
    y = forward(name, x)
    dy = np.ones_like(x)
    dx = backward(name, dy, x, y)
    assert_like_torch(y, TORCH[name], (x,), atol=1e-6)
    # Where x is NaN, torch's newer gradients differ between its vectors and their tail.
    if name not in ("relu", "sigmoid", "tanh", "gelu", "silu"):
        x, dy, dx = (np.tile(a[~np.isnan(x)], 4) for a in (x, dy, dx))
    assert_like_torch(None, TORCH[name], (x,), dy=dy, gradients={0: dx}, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_in_place(name):
    x, dy = floats(1000), floats(1000, seed=1)
    y = forward(name, x)
    dx = backward(name, dy, x, y)
    same = x.copy()
    assert forward(name, same, out=same) is same
    assert_exact(same, y)
    same = dy.copy()
    backward(name, same, x, y, out=same)
    assert_exact(same, dx)


@pytest.mark.parametrize("name", NAMES)
def test_same_bits_for_any_number_of_threads(name):
    x, dy = floats(100_003, scale=3.0), floats(100_003, seed=1)
    before = _core.num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            y = forward(name, x)
            results.append((y, backward(name, dy, x, y)))
    finally:
        _core.set_num_threads(before)
    for y, dx in results[1:]:
        assert_exact(y, results[0][0])
        assert_exact(dx, results[0][1])


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.3, 1.0, 2.5])
def test_leaky_relu_of_any_slope(isa, slope):
    x, dy = floats(3, 99, scale=3.0), floats(3, 99, seed=1)
    x[0, :3] = 0, -0.0, np.nan
    y = ops.leaky_relu(x, slope)
    dx = ops.leaky_relu_backward(dy, y, slope)
    reference = lambda x: F.leaky_relu(x, np.float32(slope))  # noqa: E731
    assert_like_torch(y, reference, (x,), dy=dy, gradients={0: dx}, exact=True)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_elu_of_any_alpha(isa, alpha):
    x, dy = floats(3, 99, scale=3.0), floats(3, 99, seed=1)
    y = ops.elu(x, alpha)
    dx = ops.elu_backward(dy, y, alpha)
    assert_like_torch(y, lambda x: F.elu(x, alpha), (x,), dy=dy, gradients={0: dx})


@pytest.mark.parametrize("name", ["relu6", "hard_sigmoid", "hard_swish"])
def test_corners_of_the_piecewise_activations(isa, name):
    x = np.array([-3.5, -3, -2.5, -0.0, 0, 2.5, 3, 3.5, 6, 6.5], np.float32)
    y = forward(name, x)
    dx = backward(name, np.ones_like(x), x, y)
    assert_like_torch(y, TORCH[name], (x,), dy=np.ones_like(x), gradients={0: dx})


@pytest.mark.parametrize("name,argument", [("leaky_relu", "negative_slope"), ("elu", "alpha")])
def test_a_bad_slope_or_alpha(name, argument):
    x = floats(3)
    for value in (-0.1, float("nan"), float("inf"), 1e300):
        with pytest.raises(ValueError, match=f"{name}: expected {argument} to be a finite number"):
            forward(name, x, **{argument: value})
        with pytest.raises(ValueError, match=f"{name}_backward: expected {argument} to be a fin"):
            backward(name, x, x, x, **{argument: value})
    for value in ("0.1", None, True):
        with pytest.raises(TypeError, match=f"{name}: expected {argument} to be a number"):
            forward(name, x, **{argument: value})
