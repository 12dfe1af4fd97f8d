"""batch_norm against torch: forward, gradients, moving averages, inside plans and as a layer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import convlet
from convlet import _core, layers, ops
from nets import MSE, Net
from reference import (
    AWKWARD,
    assert_accurate,
    assert_exact,
    assert_like_torch,
    channels,
    floats,
    integers,
    nchw,
    nhwc,
    sizes,
)
from torch_training import assert_trains_alike


def arguments(c, seed=0):
    """gamma, beta, mean and var for c channels."""
    gamma, beta, mean = (floats(c, seed=seed + i) for i in range(3))
    return gamma, beta, mean, 0.5 + floats(c, seed=seed + 3) ** 2


def torch_batch_norm(mean, var, training, epsilon=1e-3):
    """torch's batch_norm of (rows, C) or (N,H,W,C) as a function of x, gamma, beta."""

    def function(x, gamma, beta):
        flat = x.reshape(-1, x.shape[-1])
        if training and len(flat) == 1:
            return (beta + 0 * gamma + 0 * flat).reshape(x.shape)
        given = [None if training else torch.from_numpy(a).to(x.dtype) for a in (mean, var)]
        y = F.batch_norm(flat, *given, gamma, beta, training or False, 0.0, epsilon)
        return y.reshape(x.shape)

    return function


def check(x, training, epsilon=1e-3, atol=1e-6):
    """Forward and all gradients."""
    c = x.shape[-1]
    gamma, beta, mean, var = arguments(c)
    dy = floats(*x.shape, seed=9)
    moving = (mean.copy(), var.copy())
    y = ops.batch_norm(x, gamma, beta, *moving, training=training, epsilon=epsilon)
    gradients = ops.batch_norm_backward(dy, x, gamma, mean, var, training=training, epsilon=epsilon)
    assert_like_torch(
        y,
        torch_batch_norm(mean, var, training, epsilon),
        (x, gamma, beta),
        dy=dy,
        gradients=dict(enumerate(gradients)),
        atol=atol * max(1, np.sqrt(x.size // c)),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("c", [*AWKWARD, 8, 16, 32, 64, 130])
@pytest.mark.parametrize("rows", [2, 3, 19, 130, 300])
def test_shapes(isa, rows, c, training):
    check(2 * floats(rows, c) + 1, training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 31, 33, 66), (3, 2049, 64), (4, 7, 7, 2048), (2, 70000)])
def test_many_blocks_and_parts(shape, training):
    check(floats(*shape), training)


@given(st.integers(1, 4), sizes, st.integers(1, 9), channels, st.booleans())
def test_random_shapes(n, h, w, c, training):
    check(floats(n, h, w, c), training, atol=4e-6)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3, 0.5])
def test_epsilon(epsilon):
    check(0.1 * floats(40, 5), True, epsilon)
    check(0.1 * floats(40, 5), False, epsilon)


def test_statistics_of_whole_numbers_are_exact(isa):
    """The mean and variance of whole numbers, over two blocks of 32 rows, have no rounding."""
    x = integers(64, 19) + np.arange(19, dtype=np.float32) * 1000
    mean, var = np.zeros(19, np.float32), np.zeros(19, np.float32)
    ops.batch_norm(x, None, None, mean, var, training=True, momentum=0.0)
    exact = x.astype(np.float64)
    assert_exact(mean, exact.mean(0).astype(np.float32))
    assert_exact(var, exact.var(0).astype(np.float32))


@pytest.mark.parametrize("offset", [0, 1, 1e3, 1e5])
@pytest.mark.parametrize("rows", [2, 127, 1000, 70000])
def test_statistics_far_from_zero(rows, offset):
    """A mean that is large beside the deviation costs the variance nothing."""
    x = (floats(rows, 17) + offset).astype(np.float32)
    mean, var = np.zeros(17, np.float32), np.zeros(17, np.float32)
    ops.batch_norm(x, None, None, mean, var, training=True, momentum=0.0)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=2e-7, atol=2e-7)
    np.testing.assert_allclose(var, exact.var(0), rtol=2e-6)


def test_statistics_of_a_drifting_input():
    """Blocks of rows whose means lie far apart, as the rows of one image after another's do."""
    x = floats(5000, 9) + 1e4 * (np.arange(5000) // 100 % 7)[:, None].astype(np.float32)
    mean, var = np.zeros(9, np.float32), np.zeros(9, np.float32)
    ops.batch_norm(x, None, None, mean, var, training=True, momentum=0.0)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(0), rtol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99, 1.0])
def test_moving_averages(momentum):
    x, (gamma, beta, mean, var) = floats(50, 7), arguments(7)
    expected = [
        momentum * old + (1 - momentum) * new
        for old, new in ((mean, x.mean(0, np.float64)), (var, x.var(0, np.float64)))
    ]
    ops.batch_norm(x, gamma, beta, mean, var, training=True, momentum=momentum)
    np.testing.assert_allclose(mean, expected[0], atol=3e-7)
    np.testing.assert_allclose(var, expected[1], atol=3e-7)
    before = mean.copy(), var.copy()
    ops.batch_norm(x, gamma, beta, mean, var, training=False)
    ops.batch_norm(x[:0], gamma, beta, mean, var, training=True)
    assert_exact(mean, before[0])
    assert_exact(var, before[1])


def test_arguments_that_are_left_out():
    x, dy = floats(20, 6), floats(20, 6, seed=1)
    ones, zeros = np.ones(6, np.float32), np.zeros(6, np.float32)
    expected = ops.batch_norm(x, ones, zeros, None, None, training=True)
    assert_exact(ops.batch_norm(x, None, None, None, None, training=True), expected)
    gradients = ops.batch_norm_backward(dy, x, ones, training=True)
    for a, b in zip(gradients, ops.batch_norm_backward(dy, x, None, training=True), strict=True):
        assert_exact(a, b)
    with pytest.raises(TypeError, match="batch_norm: expected mean to be .*got NoneType"):
        ops.batch_norm(x, None, None, None, zeros, training=True)
    with pytest.raises(TypeError, match="batch_norm_backward: expected mean .*got NoneType"):
        ops.batch_norm_backward(dy, x, None)


def test_one_row_in_training():
    """Variance 0, as in Keras (torch refuses): y = beta, and no NaN."""
    x, (gamma, beta, mean, var) = floats(1, 1, 1, 19), arguments(19)
    assert_exact(ops.batch_norm(x, gamma, beta, None, None, training=True), beta.reshape(x.shape))
    dx, dgamma, dbeta = ops.batch_norm_backward(x + 1, x, gamma, training=True)
    assert not dx.any()
    assert not dgamma.any()
    assert_exact(dbeta, (x + 1).reshape(-1))
    ops.batch_norm(x, gamma, beta, mean, var, training=True, momentum=0.5)
    assert np.isfinite(mean).all()
    assert np.isfinite(var).all()


def test_averages_are_changed_in_place_or_refused():
    x, (gamma, beta, mean, var) = floats(20, 4), arguments(4)
    tensor = torch.from_numpy(mean.copy())
    y = ops.batch_norm(torch.from_numpy(x), None, None, tensor, torch.from_numpy(var.copy()))
    assert isinstance(y, torch.Tensor)
    ops.batch_norm(torch.from_numpy(x), None, None, tensor, torch.ones(4), training=True)
    assert not np.array_equal(tensor.numpy(), mean)
    frozen = mean.copy()
    frozen.flags.writeable = False
    for bad, part in (
        (frozen, "read-only"),
        (floats(8)[::2], "C-contiguous"),
        (var, "apart from mean"),
        (gamma, "apart from gamma"),
        (x[0], "apart from x"),
    ):
        given = (var, bad) if bad is var else (bad, var)
        with pytest.raises(ValueError, match=f"batch_norm: expected .*{part}"):
            ops.batch_norm(x, gamma, beta, *given, training=True)


def test_non_contiguous_input():
    x, dy = floats(4, 6, 5, 10), floats(4, 6, 5, 10, seed=1)
    gamma, beta, mean, var = arguments(5)
    for training in (True, False):
        y = ops.batch_norm(x[:, ::2, :, ::2], gamma, beta, mean.copy(), var, training=training)
        x_copy = np.ascontiguousarray(x[:, ::2, :, ::2])
        assert_exact(y, ops.batch_norm(x_copy, gamma, beta, mean.copy(), var, training=training))
        dy_copy = np.ascontiguousarray(dy[:, ::2, :, ::2])
        for a, b in zip(
            ops.batch_norm_backward(
                dy[:, ::2, :, ::2], x[:, ::2, :, ::2], gamma, mean, var, training=training
            ),
            ops.batch_norm_backward(dy_copy, x_copy, gamma, mean, var, training=training),
            strict=True,
        ):
            assert_exact(a, b)


def test_in_place_and_nan():
    x, (gamma, beta, mean, var) = floats(30, 9), arguments(9)
    expected = ops.batch_norm(x, gamma, beta, None, None, training=True)
    assert_exact(ops.batch_norm(x, gamma, beta, None, None, training=True, out=x), expected)
    x[3, 2] = np.nan
    y = ops.batch_norm(x, gamma, beta, mean, var, training=True)
    assert np.isnan(y[:, 2]).all()
    assert np.isnan(mean).sum() == np.isnan(var).sum() == np.isnan(y[0]).sum() == 1


def test_same_bits_for_any_number_of_threads():
    x, dy = floats(9, 40, 30, 66), floats(9, 40, 30, 66, seed=1)
    gamma, beta, mean, var = arguments(66)
    before, results = _core.num_threads(), []
    try:
        for count in (1, 2, 5):
            _core.set_num_threads(count)
            averages = mean.copy(), var.copy()
            y = ops.batch_norm(x, gamma, beta, *averages, training=True)
            results.append(
                [y, *averages, *ops.batch_norm_backward(dy, x, gamma, training=True)]
                + [*ops.batch_norm_backward(dy, x, gamma, mean, var)]
            )
    finally:
        _core.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_exact(a, b)


# ---------------------------------------------------------------- inside plans


def small_net(**attributes):
    net = Net()
    x = net.batch_norm(net.conv2d(net.input(6, 5, 3), 7, bias=False), **attributes)
    x = net.node("activation", x, activation="relu")
    net.output(net.dense(net.flatten(x), 2))
    return net


def train_plan(net, state, n, **options):
    return _core.Plan(net.graph, state, "train", n, [MSE], **options)


def test_moving_averages_follow_in_the_update():
    net = small_net(momentum=0.75)
    state = net.state()
    images, targets = net.data(4), [floats(4, 2)]
    train_plan(net, state, 4).run(images, targets, learning_rate=0.1)
    convolved = net.forward(images, train=True)[1].reshape(-1, 7).astype(np.float64)
    for i, new in ((3, convolved.mean(0)), (4, convolved.var(0))):
        np.testing.assert_allclose(
            state.get(i), 0.75 * net.parameters[i] + 0.25 * new, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("bad", ["input", "target"])
def test_a_loss_that_is_not_finite_changes_no_average(bad):
    net = small_net()
    state = net.state({"kind": "sgd", "momentum": 0.9})
    images, targets = net.data(4), [floats(4, 2)]
    (images if bad == "input" else targets)[0].flat[0] = np.nan
    plan = train_plan(net, state, 4)
    assert not np.isfinite(plan.run(images, targets, learning_rate=0.1)[0])
    for i, values in enumerate(net.parameters):
        assert_exact(state.get(i), values)
    assert plan.first_non_finite().startswith("input" if bad == "input" else "target")


def test_frozen_statistics():
    """training=False: the moving averages are used, and kept, in train mode too."""
    net = small_net(training=False)
    state = net.state()
    images, targets = net.data(4), [floats(4, 2)]
    plan = train_plan(net, state, 4)
    predicted = _core.Plan(net.graph, state, "predict", 4, fuse=False).predict(images)[0]
    plan.run(images, targets, learning_rate=0.1)
    assert_exact(plan.output(0), predicted)
    assert not any(s["kernel"] in ("moving_average", "channel_statistics") for s in plan.steps())
    for i in (3, 4):
        assert_exact(state.get(i), net.parameters[i])
    assert not np.array_equal(state.get(1), net.parameters[1])


def test_a_layer_used_twice_follows_both_batches():
    net = Net()
    a, b = net.input(5), net.input(5)
    ids = [net.parameter(5, scale=1.0) for _ in range(2)]
    ids += [net.parameter(5, scale=0.0, trainable=False) for _ in range(2)]
    outputs = [
        net.node(
            "batch_norm", x, parameters=ids, scale=True, center=True, momentum=0.5, training=True
        )
        for x in (a, b)
    ]
    net.output(net.node("add", *outputs))
    state, data, target = net.state(), net.data(6), floats(6, 5)
    train_plan(net, state, 6).run(data, [target])
    first, second = (x.astype(np.float64) for x in data)
    np.testing.assert_allclose(
        state.get(2), 0.25 * first.mean(0) + 0.5 * second.mean(0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        state.get(3), 0.25 * first.var(0) + 0.5 * second.var(0), rtol=1e-5, atol=1e-6
    )
    values = net.forward(data, train=True)
    _, key, dz = net.loss(values, MSE, target)
    for i, gradient in enumerate(net.backward(values, [(key, dz)])[:2]):
        assert_exact(state.gradient(i), gradient)


def test_graph_errors():
    def node(x=(4, 4, 3), shapes=((3,),) * 4, trainable=(True, True, False, False), **attributes):
        graph = _core.Graph()
        ids = [
            graph.parameter(f"p{i}", shape, trainable=train)
            for i, (shape, train) in enumerate(zip(shapes, trainable, strict=False))
        ]
        graph.node("batch_norm", "bn", [graph.input("x", x)], ids, attributes)

    node()
    for arguments_, part in (
        ({"x": ()}, "axis of channels"),
        ({"shapes": ((3,),) * 3}, "expected 4 parameters"),
        ({"scale": False}, "expected 3 parameters"),
        ({"shapes": ((3,), (3,), (4,), (3,))}, r"shape \(3,\), got \(4,\)"),
        ({"trainable": (True,) * 4}, "not trainable"),
        ({"momentum": 1.5}, "momentum"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"training": 1}, "a bool"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"bn: .*{part}"):
            node(**arguments_)


# ---------------------------------------------------------------- the layer


def test_layer_defaults_and_weights():
    layer = layers.BatchNormalization()
    model = convlet.Sequential([convlet.Input((4, 4, 6)), layer])
    assert [w.name for w in layer.weights] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert len(layer.trainable_weights) == len(layer.non_trainable_weights) == 2
    for got, expected in zip(layer.get_weights(), (1, 0, 0, 1), strict=True):
        assert_exact(got, np.full(6, expected, np.float32))
    x = floats(3, 4, 4, 6)
    np.testing.assert_allclose(model.predict(x, verbose=0), x / np.sqrt(1.001), rtol=1e-6)
    config = layer.get_config()
    assert (config["momentum"], config["epsilon"], config["axis"]) == (0.99, 1e-3, -1)
    assert layers.BatchNormalization.from_config(config).get_config() == config


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"axis": 1}, "axis: expected -1 or 3"),
        ({"axis": 0.5}, "axis"),
        ({"momentum": 1.5}, "momentum: expected a number in"),
        ({"epsilon": 0}, "epsilon: expected a number > 0"),
        ({"center": 1}, "center: expected True or False"),
        ({"renorm": True}, "renorm"),
        ({"gamma_constraint": "x"}, "gamma_constraint"),
    ],
)
def test_layer_errors(options, part):
    with pytest.raises(ValueError, match=f"BatchNormalization 'batch_normalization'.*{part}"):
        convlet.Sequential([convlet.Input((4, 4, 6)), layers.BatchNormalization(**options)])


def conv_net(**options):
    return convlet.Sequential(
        [
            convlet.Input((9, 8, 3)),
            layers.Conv2D(6, 3, use_bias=False),
            layers.BatchNormalization(**options),
            layers.ReLU(),
            layers.Conv2D(8, 3, strides=2, use_bias=False),
            layers.BatchNormalization(axis=3, momentum=0.9, epsilon=1e-5),
            layers.Activation("gelu"),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )


class TorchNet(torch.nn.Module):
    """conv_net; torch's running variance is the unbiased one, which training never reads."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 6, 3, bias=False)
        self.norm1 = torch.nn.BatchNorm2d(6, eps=1e-3, momentum=0.01)
        self.conv2 = torch.nn.Conv2d(6, 8, 3, stride=2, bias=False)
        self.norm2 = torch.nn.BatchNorm2d(8, eps=1e-5, momentum=0.1)
        self.dense = torch.nn.Linear(48, 5)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(nchw(x))))
        x = F.gelu(self.norm2(self.conv2(x)))
        return self.dense(nhwc(x).flatten(1))


def test_training_against_torch():
    from torch_training import copy_weights

    model, module = conv_net(), TorchNet()
    copy_weights(model, module)
    x, y = floats(64, 9, 8, 3), np.arange(64) % 5
    assert_trains_alike(model, module, x, y)


def test_frozen_layer_trains_like_torch_in_eval():
    from torch_training import copy_weights

    model, module = conv_net(trainable=False), TorchNet()
    norm = model.layers[1]
    norm.set_weights([1 + 0.1 * floats(6), *(floats(6, seed=i) for i in (1, 2)), np.full(6, 0.5)])
    copy_weights(model, module)
    module.norm1.requires_grad_(False)
    module.norm1.train = lambda mode=True: module.norm1
    module.norm1.training = False
    before = norm.get_weights()
    assert_trains_alike(model, module, floats(64, 9, 8, 3), np.arange(64) % 5)
    for a, b in zip(norm.get_weights(), before, strict=True):
        assert_exact(a, b)


def test_freezing_takes_effect_at_the_next_compile():
    model = conv_net()
    x, y = floats(8, 9, 8, 3), np.arange(8) % 5
    options = {"optimizer": "sgd", "loss": "mse"}
    target = floats(8, 5)
    model.compile(**options)
    model.train_on_batch(x, target)
    norm = model.layers[1]
    norm.trainable = False
    model.compile(**options)
    before = norm.get_weights()
    model.train_on_batch(x, target)
    for a, b in zip(norm.get_weights(), before, strict=True):
        assert_exact(a, b)
    norm.trainable = True
    model.compile(**options)
    model.train_on_batch(x, target)
    assert not any(np.array_equal(a, b) for a, b in zip(norm.get_weights(), before, strict=True))
    assert len(y) == 8


def test_save_and_load(tmp_path):
    model = conv_net()
    x, y = floats(16, 9, 8, 3), np.arange(16) % 5
    model.compile("adam", convlet.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert_exact(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.train_on_batch(x, y) == model.train_on_batch(x, y)
    assert_exact(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_evaluation_uses_the_moving_averages():
    x = floats(32, 9, 8, 3)
    model = conv_net()
    layer_output = convlet.Model(model.inputs, model.layers[1].output)
    gamma, beta, mean, var = arguments(6)
    model.layers[1].set_weights([gamma, beta, mean, var])
    convolved = convlet.Model(model.inputs, model.layers[0].output).predict(x, verbose=0)
    args = (convolved, gamma, beta)
    y32, y64 = (
        torch_batch_norm(mean, var, False)(*(torch.from_numpy(a).to(t) for a in args)).numpy()
        for t in (torch.float32, torch.float64)
    )
    assert_accurate(layer_output.predict(x, verbose=0), y32, y64)
