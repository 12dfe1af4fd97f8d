"""sigmoid_cross_entropy, mean_squared_error and binary cross-entropy, against torch."""

import numpy as np
import pytest
import torch

from convlet import _core, ops
from reference import AWKWARD, assert_accurate, assert_exact, floats

F = torch.nn.functional
EPSILON = 1e-7  # binary cross-entropy clips its probabilities to [EPSILON, 1 - EPSILON], as Keras

REDUCTIONS = ("mean", "sum", "none")
KINDS = ("sigmoid_cross_entropy", "mean_squared_error", "binary_cross_entropy")


def loss_of(kind, prediction, target, smoothing=0.0, reduction="mean", return_grad=False):
    if kind == "sigmoid_cross_entropy":
        return ops.sigmoid_cross_entropy(
            prediction,
            target,
            label_smoothing=smoothing,
            reduction=reduction,
            return_grad=return_grad,
        )
    if kind == "mean_squared_error":
        return ops.mean_squared_error(
            prediction, target, reduction=reduction, return_grad=return_grad
        )
    # No functional op, only a model's loss, takes probabilities.
    return _core.elementwise_loss(kind, prediction, target, smoothing, reduction, return_grad)


def torch_loss(kind, dtype, prediction, target, smoothing, reduction):
    """(loss, gradient) of torch in this dtype."""
    p = torch.from_numpy(prediction).to(dtype).requires_grad_()
    t = torch.from_numpy(target).to(dtype)
    if kind == "mean_squared_error":
        loss = F.mse_loss(p, t, reduction=reduction)
    else:
        t = (1 - smoothing) * t + smoothing / 2
        if kind == "sigmoid_cross_entropy":
            loss = F.binary_cross_entropy_with_logits(p, t, reduction=reduction)
        else:
            low, high = float(np.float32(EPSILON)), float(np.float32(1 - EPSILON))
            loss = F.binary_cross_entropy(p.clamp(low, high), t, reduction=reduction)
    loss.sum().backward()
    return loss.detach().numpy(), p.grad.numpy()


def make(kind, *shape):
    rng = np.random.default_rng([5, *shape])
    target = rng.random(shape).astype(np.float32)
    if kind == "binary_cross_entropy":
        return rng.random(shape).astype(np.float32), target
    return floats(*shape, scale=3.0), target


def check(kind, prediction, target, smoothing=0.0, reduction="mean"):
    loss, gradient = loss_of(kind, prediction, target, smoothing, reduction, True)
    arguments = (prediction, target, smoothing, reduction)
    loss32, g32 = torch_loss(kind, torch.float32, *arguments)
    loss64, g64 = torch_loss(kind, torch.float64, *arguments)
    scale = max(1.0, float(np.nanmax(np.abs(loss64), initial=0)))
    assert_accurate(loss, loss32, loss64, atol=1e-6 * scale)
    assert_accurate(gradient, g32, g64, atol=1e-6 * max(1.0, float(np.nanmax(np.abs(g64)))))
    assert_exact(loss_of(kind, prediction, target, smoothing, reduction), loss)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("columns", [*AWKWARD, 8, 10, 5001])
def test_sizes(isa, kind, reduction, columns):
    for shape in ((1, columns), (19, columns), (columns,), (2, 3, columns)):
        check(kind, *make(kind, *shape), reduction=reduction)


@pytest.mark.parametrize("kind", ["sigmoid_cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_label_smoothing(isa, kind, smoothing):
    for reduction in REDUCTIONS:
        check(kind, *make(kind, 7, 13), smoothing=smoothing, reduction=reduction)


@pytest.mark.parametrize("kind", KINDS)
def test_empty(kind):
    for shape in ((0,), (0, 3)):
        prediction, target = make(kind, *shape)
        loss, gradient = loss_of(kind, prediction, target, 0.0, "none", True)
        assert loss.shape == gradient.shape == shape
        assert loss_of(kind, prediction, target, 0.0, "sum") == 0
        assert np.isnan(loss_of(kind, prediction, target))


def test_logits_of_any_size(isa):
    z = np.array([0, -0.0, 1e-30, 20, -20, 100, -100, 1e30, -1e30], np.float32)
    for target in (0.0, 1.0, 0.25):
        t = np.full_like(z, target)
        check("sigmoid_cross_entropy", z, t, reduction="none")
    # The small side keeps its digits: l = log(1 + e^-z) for target 1.
    z = np.linspace(5, 80, 1001, dtype=np.float32)
    loss = ops.sigmoid_cross_entropy(z, np.ones_like(z), reduction="none")
    np.testing.assert_allclose(loss, np.log1p(np.exp(-z.astype(np.float64))), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_passes(isa, kind):
    prediction, target = make(kind, 19)
    prediction[3] = np.nan
    loss, gradient = loss_of(kind, prediction, target, 0.0, "none", True)
    assert np.flatnonzero(np.isnan(loss)).tolist() == [3]
    assert np.flatnonzero(np.isnan(gradient)).tolist() == [3]
    assert np.isnan(loss_of(kind, prediction, target))


def test_clipped_probabilities(isa):
    p = np.array([0.0, 1.0, 0.0, 1.0, -0.5, 1.5, 0.5], np.float32)
    t = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0], np.float32)
    loss, gradient = loss_of("binary_cross_entropy", p, t, 0.0, "none", True)
    inside = np.clip(p, np.float32(EPSILON), np.float32(1 - EPSILON)).astype(np.float64)
    expected = -t * np.log(inside) - (1 - t) * np.log1p(-inside)
    np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=3e-8)
    assert_exact(gradient, np.array([0, 0, 0, 0, 0, 0, -2], np.float32))


def test_integers_are_exact():
    prediction = np.array([[1, -2, 3], [0, 5, -1]], np.float32)
    target = np.array([[0, 2, 3], [1, 1, 1]], np.float32)
    loss, gradient = ops.mean_squared_error(prediction, target, reduction="sum", return_grad=True)
    assert_exact(loss, np.float32(38))
    assert_exact(gradient, np.array([[2, -8, 0], [-2, 8, -4]], np.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_is_the_slope_of_the_loss(kind, smoothing):
    rng = np.random.default_rng(0)
    prediction = rng.uniform(0.3, 0.7, (3, 5)).astype(np.float32)
    target = rng.random((3, 5)).astype(np.float32)
    _, gradient = loss_of(kind, prediction, target, smoothing, "sum", True)
    h = np.float32(2**-8)
    for index in np.ndindex(prediction.shape):
        step = np.zeros_like(prediction)
        step[index] = h
        above = loss_of(kind, prediction + step, target, smoothing, "sum")
        below = loss_of(kind, prediction - step, target, smoothing, "sum")
        assert (above - below) / (2 * h) == pytest.approx(gradient[index], abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_for_any_number_of_threads(kind):
    prediction, target = make(kind, 2000, 17)
    before = _core.num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            results.append(loss_of(kind, prediction, target, 0.0, "mean", True))
    finally:
        _core.set_num_threads(before)
    for loss, gradient in results[1:]:
        assert_exact(loss, results[0][0])
        assert_exact(gradient, results[0][1])


@pytest.mark.parametrize(
    "shape,other", [((4,), (4, 1)), ((4, 1), (4,)), ((2, 3), (3, 2)), ((2, 3), (1, 3))]
)
def test_shapes_are_never_broadcast(shape, other):
    prediction, target = np.zeros(shape, np.float32), np.zeros(other, np.float32)
    for function in (ops.sigmoid_cross_entropy, ops.mean_squared_error):
        with pytest.raises(ValueError, match="of the same shape as"):
            function(prediction, target)
