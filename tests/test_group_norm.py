"""group_norm and instance_norm against torch: forward, gradients, and as layers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import convlet
from convlet import _core, layers, ops
from reference import AWKWARD, assert_exact, assert_like_torch, floats, nchw, nhwc, sizes
from torch_training import assert_trains_alike, copy_weights


def torch_group_norm(groups, epsilon):
    def function(x, gamma, beta):
        y = F.group_norm(x.movedim(-1, 1), groups, gamma, beta, epsilon)
        return y.movedim(1, -1)

    return function


def check(x, groups, epsilon=1e-3, atol=1e-6):
    """Forward and all gradients."""
    c = x.shape[-1]
    gamma, beta, dy = floats(c), floats(c, seed=1), floats(*x.shape, seed=9)
    y = ops.group_norm(x, gamma, beta, groups=groups, epsilon=epsilon)
    gradients = ops.group_norm_backward(dy, x, gamma, groups=groups, epsilon=epsilon)
    assert_like_torch(
        y,
        torch_group_norm(groups, epsilon),
        (x, gamma, beta),
        dy=dy,
        gradients=dict(enumerate(gradients)),
        atol=atol * max(1, np.sqrt(x.size // c)),
    )


@pytest.mark.parametrize("c", [*AWKWARD, 32, 128])
@pytest.mark.parametrize("size", [(1, 2), (3, 3), (12, 11)])
def test_one_group_and_one_channel_each(isa, size, c):
    x = 2 * floats(3, *size, c) + 1
    check(x, 1)
    check(x, c)


@pytest.mark.parametrize(("c", "groups"), [(6, 2), (6, 3), (66, 11), (64, 32), (96, 4), (34, 2)])
def test_groups(isa, c, groups):
    check(floats(2, 7, 5, c), groups)


def test_far_from_zero_and_first_rows_unlike_the_rest(isa):
    """Sums are of distances from the means of a sample's first rows."""
    check(floats(2, 20, 16, 12) + np.linspace(-300, 300, 12, dtype=np.float32), 12)
    x = floats(2, 40, 32, 12)
    x[:, 0] += 1000
    check(x, 4)


@given(st.integers(1, 4), sizes, st.integers(1, 6), st.integers(1, 5), st.integers(1, 9))
def test_random_shapes(n, h, w, groups, width):
    if h * w * width == 1:
        h += 1  # torch refuses one value per group
    check(floats(n, h, w, groups * width), groups, atol=4e-6)


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 6), (2, 3, 2, 3, 6)])
def test_any_number_of_positions(shape):
    check(floats(*shape), 3)


def test_instance_norm_is_a_group_for_each_channel():
    x, dy = floats(3, 5, 4, 6), floats(3, 5, 4, 6, seed=1)
    gamma, beta = floats(6), floats(6, seed=1)
    expected = ops.group_norm(x, gamma, beta, groups=6, epsilon=1e-5)
    assert_exact(ops.instance_norm(x, gamma, beta, epsilon=1e-5), expected)
    for a, b in zip(
        ops.instance_norm_backward(dy, x, gamma),
        ops.group_norm_backward(dy, x, gamma, groups=6),
        strict=True,
    ):
        assert_exact(a, b)
    assert_like_torch(
        ops.instance_norm(x, gamma, beta),
        lambda x, g, b: nhwc(F.instance_norm(nchw(x), None, None, g, b, eps=1e-3)),
        (x, gamma, beta),
    )


def test_one_value_per_group():
    x, dy = floats(3, 1, 1, 4), floats(3, 1, 1, 4, seed=1)
    beta = floats(4)
    assert_exact(ops.instance_norm(x, None, beta), np.broadcast_to(beta, x.shape))
    dx, dgamma, dbeta = ops.instance_norm_backward(dy, x)
    assert not dx.any()
    assert not dgamma.any()
    np.testing.assert_allclose(dbeta, dy.sum((0, 1, 2)), rtol=1e-6)


def test_non_contiguous_nan_empty_and_in_place():
    x = floats(4, 6, 5, 8)[::2, :, :, ::2]
    expected = ops.group_norm(np.ascontiguousarray(x), groups=2)
    assert_exact(ops.group_norm(x, groups=2), expected)
    own = np.ascontiguousarray(x)
    assert_exact(ops.group_norm(own, groups=2, out=own), expected)
    own[1, 2, 3, 0] = np.nan
    y = ops.group_norm(own, groups=2)
    assert np.isnan(y[1, ..., :2]).all()
    assert not np.isnan(y[1, ..., 2:]).any()
    assert not np.isnan(y[0]).any()
    assert ops.group_norm(own[:0], groups=2).shape == (0, 6, 5, 4)


def test_same_bits_for_any_number_of_threads():
    x, dy = floats(5, 40, 30, 12), floats(5, 40, 30, 12, seed=1)
    before, results = _core.num_threads(), []
    try:
        for count in (1, 2, 5):
            _core.set_num_threads(count)
            results.append([ops.group_norm(x, groups=4), *ops.group_norm_backward(dy, x, groups=4)])
    finally:
        _core.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_exact(a, b)


# ---------------------------------------------------------------- the layers


@pytest.mark.parametrize(
    ("layer", "groups"),
    [
        (layers.GroupNormalization(3), 3),
        (layers.GroupNormalization(-1, axis=3), 6),
        (layers.InstanceNormalization(), 6),
    ],
)
def test_layer(layer, groups):
    model = convlet.Sequential([convlet.Input((5, 4, 6)), layer])
    assert [w.name for w in layer.weights] == ["gamma", "beta"]
    gamma, beta, x = floats(6), floats(6, seed=1), floats(2, 5, 4, 6)
    layer.set_weights([gamma, beta])
    assert_exact(model.predict(x, verbose=0), ops.group_norm(x, gamma, beta, groups=groups))
    config = layer.get_config()
    assert type(layer).from_config(config).get_config() == config


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "groups: expected a divisor of the 6 channels, got 32"),
        ({"groups": 4}, "groups: expected a divisor of the 6 channels, got 4"),
        ({"groups": 0}, "groups: expected"),
        ({"groups": 2.0}, "groups: expected an integer"),
        ({"groups": 2, "axis": 1}, "axis: expected -1 or 3"),
        ({"groups": 2, "epsilon": -1}, "epsilon"),
    ],
)
def test_layer_errors(options, part):
    with pytest.raises(ValueError, match=f"GroupNormalization.*{part}"):
        convlet.Sequential([convlet.Input((5, 4, 6)), layers.GroupNormalization(**options)])


class TorchNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.norm1 = torch.nn.GroupNorm(4, 8, eps=1e-3)
        self.norm2 = torch.nn.GroupNorm(8, 8, eps=1e-5)
        self.dense = torch.nn.Linear(240, 5)

    def forward(self, x):
        x = self.norm2(F.silu(self.norm1(self.conv(nchw(x)))))
        return self.dense(nhwc(x).flatten(1))


def test_training_against_torch(tmp_path):
    model = convlet.Sequential(
        [
            convlet.Input((8, 7, 3)),
            layers.Conv2D(8, 3, activation=None),
            layers.GroupNormalization(4),
            layers.Activation("silu"),
            layers.InstanceNormalization(epsilon=1e-5),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    module = TorchNet()
    copy_weights(model, module)
    x = floats(64, 8, 7, 3)
    assert_trains_alike(model, module, x, np.arange(64) % 5)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert_exact(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
