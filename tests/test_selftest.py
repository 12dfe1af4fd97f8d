"""The self-test's training against that in float64, with factors rounded as a precision says."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from convlet import _core, selftest
from reference import assert_exact

MANTISSA = {"float32": None, "tf32": 10, "bfloat16": 7}  # bits after the point; None: not rounded


def rounded(t, bits):
    if bits is None:
        return t.detach()
    step = 1 << (23 - bits)
    pattern = t.detach().contiguous().numpy().astype(np.float32).view(np.uint32)
    nearest = (pattern + np.uint32(step // 2)) & np.uint32(0xFFFFFFFF - (step - 1))
    return torch.from_numpy(nearest.view(np.float32).astype(np.float64))


class Conv2D(torch.autograd.Function):
    @staticmethod
    def forward(context, x, w, bits):
        context.bits = bits
        context.save_for_backward(x, w)
        return functional.conv2d(rounded(x, bits), rounded(w, bits), padding=1)

    @staticmethod
    def backward(context, dy):
        x, w, dy = (rounded(t, context.bits) for t in (*context.saved_tensors, dy))
        dx = conv2d_input(x.shape, w, dy, padding=1)
        return dx, conv2d_weight(x, w.shape, dy, padding=1), None


class Dense(torch.autograd.Function):
    @staticmethod
    def forward(context, x, w, bits):
        context.bits = bits
        context.save_for_backward(x, w)
        return rounded(x, bits) @ rounded(w, bits)

    @staticmethod
    def backward(context, dy):
        x, w, dy = (rounded(t, context.bits) for t in (*context.saved_tensors, dy))
        return dy @ w.T, x.T @ dy, None


def trained(precision, bits):
    """What selftest._train gives, with its network for `precision`."""
    rng = np.random.default_rng(1)

    def draw(shape, scale=1.0):
        values = (scale * rng.standard_normal(shape)).astype(np.float32)
        return torch.from_numpy(values.astype(np.float64))

    shapes = [(3, 3, 3, 16), (16,), (256, 10), (10,)]
    parameters = [draw(shape, 0.1).requires_grad_() for shape in shapes]
    filters, bias, w, b = parameters
    pixels = rng.integers(0, 256, (12, 8, 8, 3))
    values = pixels * np.float64(np.float32(selftest.SCALE["factor"])) + selftest.SCALE["offset"]
    x = torch.from_numpy(values.astype(np.float32).astype(np.float64))
    labels = torch.arange(12) % 10
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    losses = []
    for _ in range(4):
        y = Conv2D.apply(x.permute(0, 3, 1, 2), filters.permute(3, 2, 0, 1), bits)
        y = y + bias[:, None, None]
        if precision == "float32":
            y = functional.max_pool2d(y.relu(), 2)
        else:
            y = functional.avg_pool2d(y.tanh(), 2)
        y = Dense.apply(y.permute(0, 2, 3, 1).reshape(12, 256), w, bits) + b
        loss = functional.cross_entropy(y, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return [np.array(losses), *(p.detach().numpy() for p in parameters)]


def difference(results, others):
    """The largest one, as a share of the largest value; as the self-test counts."""
    return max(
        np.abs(one - other).max() / np.abs(one).max()
        for one, other in zip(results, others, strict=True)
    )


# The CPU has no tf32, and rounds for bfloat16 only where layers are large enough to gain.
ON_CPU = _core.op_device() == "cpu"


@pytest.mark.parametrize("precision", ["float32"] if ON_CPU else list(MANTISSA))
def test_training_is_that_in_float64_with_rounded_factors(precision):
    losses, *parameters = selftest._train(_core.op_device(), precision, precision != "float32")
    ours = [losses[:, 0], *parameters]
    assert difference(trained(precision, MANTISSA[precision]), ours) < 2e-5


@pytest.mark.parametrize("precision", ["float32"] if ON_CPU else list(MANTISSA))
def test_this_device_passes(precision):
    assert selftest.failures(_core.op_device(), [precision]) == []


@pytest.mark.parametrize("sm90", ["0", "1"])
def test_convolutions_in_bfloat16_are_exact(monkeypatch, sm90):
    monkeypatch.setenv("CONVLET_SM90", sm90)
    family = selftest.FAMILIES["convolution in bfloat16"]
    for a, b in zip(*selftest._ops(family, _core.op_device()), strict=True):
        assert_exact(a, b)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_what_rounded_factors_may_change(precision):
    exact, model = trained(precision, None), trained(precision, MANTISSA[precision])
    share = selftest.TOLERANCE[precision] / difference(exact, model)
    assert 3 < share < 6
