"""layer_norm against torch: forward, gradients, inside plans and as a layer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import convlet
from convlet import _core, layers, ops
from nets import MSE, Net
from reference import AWKWARD, assert_exact, assert_like_torch, floats, sizes
from torch_training import assert_trains_alike, copy_weights


def check(x, axes=1, epsilon=1e-3, atol=1e-6):
    """Forward and all gradients."""
    shape = x.shape[x.ndim - axes :]
    gamma, beta, dy = floats(*shape), floats(*shape, seed=1), floats(*x.shape, seed=9)
    y = ops.layer_norm(x, gamma, beta, axes=axes, epsilon=epsilon)
    gradients = ops.layer_norm_backward(dy, x, gamma, axes=axes, epsilon=epsilon)
    assert_like_torch(
        y,
        lambda x, gamma, beta: F.layer_norm(x, shape, gamma, beta, epsilon),
        (x, gamma, beta),
        dy=dy,
        gradients=dict(enumerate(gradients)),
        atol=atol * max(1, np.sqrt(x.size // gamma.size)),
    )


@pytest.mark.parametrize("c", [*AWKWARD, 2, 8, 16, 96, 1100])
@pytest.mark.parametrize("rows", [1, 3, 33, 130])
def test_shapes(isa, rows, c):
    check(2 * floats(rows, c) + 1)


@pytest.mark.parametrize(("shape", "axes"), [((3, 5, 4, 6), 3), ((3, 5, 4, 6), 2), ((7, 9), 2)])
def test_several_axes(shape, axes):
    check(floats(*shape), axes)


@pytest.mark.parametrize(("shape", "axes"), [((5000, 64), 1), ((3, 70, 60, 5), 3), ((2, 5001), 1)])
def test_many_parts_and_long_rows(shape, axes):
    check(floats(*shape) + 3, axes)


@given(st.integers(0, 4), sizes, sizes, st.integers(1, 2), st.sampled_from([1e-5, 1e-3, 0.5]))
def test_random_shapes(n, h, c, axes, epsilon):
    check(floats(n, h, c), axes, epsilon, atol=3e-6)


def test_far_from_zero():
    """A mean that is large beside the deviation costs the row little."""
    x = floats(5, 300) + np.float32(1e4)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean(1, keepdims=True)) / np.sqrt(exact.var(1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(ops.layer_norm(x), exact, atol=2e-3)


def test_constant_rows_and_one_element():
    assert not ops.layer_norm(np.full((3, 7), 5, np.float32)).any()
    assert not ops.layer_norm(floats(9, 1)).any()
    dx, dgamma, dbeta = ops.layer_norm_backward(floats(9, 1), floats(9, 1))
    assert not dx.any()
    assert not dgamma.any()
    assert np.isfinite(dbeta).all()


def test_arguments_that_are_left_out():
    x, dy = floats(20, 6), floats(20, 6, seed=1)
    ones, zeros = np.ones(6, np.float32), np.zeros(6, np.float32)
    assert_exact(ops.layer_norm(x), ops.layer_norm(x, ones, zeros))
    for a, b in zip(
        ops.layer_norm_backward(dy, x), ops.layer_norm_backward(dy, x, ones), strict=True
    ):
        assert_exact(a, b)


def test_non_contiguous_nan_and_in_place():
    x = floats(6, 10, 8)[::2, :, ::2]
    expected = ops.layer_norm(np.ascontiguousarray(x), axes=2)
    assert_exact(ops.layer_norm(x, axes=2), expected)
    own = np.ascontiguousarray(x)
    assert_exact(ops.layer_norm(own, axes=2, out=own), expected)
    own[1, 2, 3] = np.nan
    y = ops.layer_norm(own, axes=2)
    assert np.isnan(y[1]).all()
    assert not np.isnan(y[[0, 2]]).any()


def test_same_bits_for_any_number_of_threads():
    x, dy, gamma = floats(3000, 66), floats(3000, 66, seed=1), floats(66)
    before, results = _core.num_threads(), []
    try:
        for count in (1, 2, 5):
            _core.set_num_threads(count)
            results.append([ops.layer_norm(x, gamma), *ops.layer_norm_backward(dy, x, gamma)])
    finally:
        _core.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_exact(a, b)


@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("op", ["layer_norm", "group_norm"])
def test_plan_equals_chained_ops(op, scale, center):
    net = Net()
    x = net.conv2d(net.input(6, 5, 3), 6)
    options = {"axes": 2, "epsilon": 0.01} if op == "layer_norm" else {"groups": 3}
    x = net.normalize(op, x, scale, center, **options)
    net.output(net.dense(net.flatten(x), 2))
    state, data, target = net.state(), net.data(4), floats(4, 2)
    plan = _core.Plan(net.graph, state, "train", 5, [MSE])
    plan.run(data, [target])
    values = net.forward(data, train=True)
    assert_exact(plan.output(0), values[net.outputs[0]])
    _, key, dz = net.loss(values, MSE, target)
    for i, gradient in enumerate(net.backward(values, [(key, dz)])):
        assert_exact(state.gradient(i), gradient)


@pytest.mark.parametrize(
    ("op", "shape", "parameters", "attributes", "part"),
    [
        ("layer_norm", (), [(1,), (1,)], {}, "at least one axis"),
        ("layer_norm", (4, 3), [(3,), (3,)], {"axes": 3}, "axes"),
        ("layer_norm", (4, 3), [(3,), (3,)], {"axes": 2}, r"shape \(4,3\), got \(3,\)"),
        ("layer_norm", (4, 3), [(3,)], {}, "expected 2 parameters"),
        ("layer_norm", (4, 3), [(3,), (3,)], {"epsilon": 0.0}, "epsilon"),
        ("group_norm", (4, 6), [(6,), (6,)], {"groups": 4}, "groups to divide C=6, got 4"),
        ("group_norm", (4, 6), [(6,), (6,)], {}, "groups to divide C=6, got 32"),
        ("group_norm", (4, 6), [(4, 6), (6,)], {"groups": 2}, r"shape \(6,\)"),
        ("group_norm", (4, 6), [(6,)], {"groups": 2, "scale": True}, "expected 2 parameters"),
    ],
)
def test_graph_errors(op, shape, parameters, attributes, part):
    graph = _core.Graph()
    ids = [graph.parameter(f"p{i}", p) for i, p in enumerate(parameters)]
    with pytest.raises(ValueError, match=f"norm: .*{part}"):
        graph.node(op, "norm", [graph.input("x", shape)], ids, attributes)


# ---------------------------------------------------------------- the layer


@pytest.mark.parametrize(
    ("axis", "shape"), [(-1, (6,)), (3, (6,)), ([-2, -1], (4, 6)), ((1, 2, 3), (5, 4, 6))]
)
def test_layer(axis, shape):
    layer = layers.LayerNormalization(axis)
    model = convlet.Sequential([convlet.Input((5, 4, 6)), layer])
    assert [w.name for w in layer.weights] == ["gamma", "beta"]
    gamma, beta, x = floats(*shape), floats(*shape, seed=1), floats(2, 5, 4, 6)
    assert [w.shape for w in layer.get_weights()] == [shape, shape]
    layer.set_weights([gamma, beta])
    expected = ops.layer_norm(x, gamma, beta, axes=len(shape))
    assert_exact(model.predict(x, verbose=0), expected)
    config = layer.get_config()
    assert layers.LayerNormalization.from_config(config).get_config() == config


@pytest.mark.parametrize("axis", [0, 1, [1, 2], [0, 1, 2, 3], 4, "last", 1.5, []])
def test_layer_errors(axis):
    with pytest.raises(ValueError, match="LayerNormalization.*axis: expected"):
        convlet.Sequential([convlet.Input((5, 4, 6)), layers.LayerNormalization(axis)])


class TorchNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.dense1 = torch.nn.Linear(12, 9)
        self.norm1 = torch.nn.LayerNorm(9, eps=1e-3)
        self.norm2 = torch.nn.LayerNorm((5, 9), eps=1e-6)
        self.dense2 = torch.nn.Linear(45, 4)

    def forward(self, x):
        x = F.gelu(self.norm1(self.dense1(x)))
        return self.dense2(self.norm2(x).flatten(1))


def test_training_against_torch(tmp_path):
    model = convlet.Sequential(
        [
            convlet.Input((5, 12)),
            layers.Dense(9),
            layers.LayerNormalization(),
            layers.Activation("gelu"),
            layers.LayerNormalization((1, 2), epsilon=1e-6),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )
    module = TorchNet()
    copy_weights(model, module)
    x = floats(64, 5, 12)
    assert_trains_alike(model, module, x, np.arange(64) % 4)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert_exact(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
