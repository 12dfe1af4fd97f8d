"""compile(..., winograd="always"): 3x3 convolutions of a training step by Winograd's, forward and
gradient of the input."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import convlet
from convlet import Input, Sequential, _core, layers, ops
from convlet.utils import set_random_seed
from nets import MSE, Net
from reference import assert_exact, error, floats, run_torch

FORWARD, BACKWARD = "conv2d_winograd", "conv2d_winograd_backward_input"


def kernels(plan):
    return [step["kernel"] for step in plan.steps()]


def conv_net(image, channels, outputs, pad, activation=None):
    """act(conv2d(x + p, w, b)) with p zero, so that dp is the sum of dx over the batch."""
    net = Net()
    zeros = net.node("parameter", parameters=[net.parameter(*image, channels, scale=0.0)])
    x = net.node("add", net.input(*image, channels), zeros)
    options = {"activation": activation} if activation else {}
    net.output(net.conv2d(x, outputs, pad=list(pad), **options))
    return net


def train_step(net, x, target, **options):
    """(the plan, its output, all gradients) of a step of SGD."""
    state = net.state()
    plan = _core.Plan(net.graph, state, "train", max(1, len(x)), [MSE], **options)
    plan.run([x], [target])
    return plan, plan.output(0), [state.gradient(i) for i in range(len(net.parameters))]


CASES = [
    # C, K, (H,W), pad (top, bottom, left, right), activation
    (32, 32, (8, 8), (1, 1, 1, 1), None),
    (33, 66, (9, 17), (1, 1, 1, 1), "relu"),
    (66, 33, (12, 10), (0, 0, 0, 0), "relu"),
    (99, 99, (19, 11), (0, 2, 1, 0), "tanh"),
    (64, 128, (16, 16), (2, 2, 2, 2), None),
    (35, 34, (9, 8), (3, 4, 0, 5), "relu"),
    (256, 64, (8, 8), (1, 1, 1, 1), "relu"),
]


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_are_accurate(case):
    """docs/performance.md has the errors."""
    channels, outputs, image, pad, activation = case
    net, n = conv_net(image, channels, outputs, pad, activation), 3
    x, target = floats(n, *image, channels), floats(n, *net.graph.shape(net.outputs[0]), seed=1)
    plan, y, (dx, dw, db) = train_step(net, x, target, winograd=True)
    assert kernels(plan).count(FORWARD) == kernels(plan).count(BACKWARD) == 2  # prepared, run
    top, bottom, left, right = pad

    def function(p, w, b, x):
        x = F.pad((x + p).permute(0, 3, 1, 2), (left, right, top, bottom))
        y = F.conv2d(x, w.permute(3, 2, 0, 1), b).permute(0, 2, 3, 1)
        return {None: lambda t: t, "relu": F.relu, "tanh": torch.tanh}[activation](y)

    _, dy = ops.mean_squared_error(y, target, return_grad=True)
    arrays = [*net.parameters, x]
    y32, (p32, w32, b32, _) = run_torch(function, arrays, dy)
    y64, (p64, w64, b64, _) = run_torch(function, arrays, dy, torch.float64)
    if activation == "relu":  # what is near 0 may have another sign, and so another gradient
        assert np.mean((y > 0) == (y64 > 0)) > 0.9999
    parts = {"y": (y, y32, y64), "dx": (dx, p32, p64), "dw": (dw, w32, w64), "db": (db, b32, b64)}
    for name, (got, plain, exact) in parts.items():
        assert np.square(got - exact).mean() <= 2e-6**2 * np.square(exact).mean(), name
        assert error(got, exact) <= 6 * error(plain, exact), name


def test_gradients_of_whole_numbers_are_near_whole_ones():
    """Every tap and channel counts once, in its place: no other whole number is as near."""
    net = conv_net((9, 11), 33, 35, (1, 0, 2, 1))
    rng = np.random.default_rng(3)
    net.parameters[1] = rng.integers(-3, 4, net.parameters[1].shape).astype(np.float32)
    x = rng.integers(-3, 4, (2, 9, 11, 33)).astype(np.float32)
    target = rng.integers(-3, 4, (2, *net.graph.shape(net.outputs[0]))).astype(np.float32)
    net.parameters[2][:] = 0
    scale = target[0].size  # dy = 2 / elements * (y - target) / n, as whole numbers
    _, y, (dx, _, _) = train_step(net, x, target, winograd=True)
    _, plain_y, (plain_dx, _, _) = train_step(net, x, target)
    assert np.abs(y - plain_y).max() < 0.01
    assert np.abs(scale * (dx - plain_dx)).max() < 0.25
    assert np.abs(scale * plain_dx).max() > 1000


@pytest.mark.parametrize("n", [1, 3, 5])
def test_threads_do_not_change_the_bits(n):
    net = conv_net((17, 9), 64, 99, (1, 1, 1, 1), "relu")
    x, target = floats(n, 17, 9, 64), floats(n, 17, 9, 99, seed=1)
    threads = _core.num_threads()
    try:
        _core.set_num_threads(1)
        _, y, gradients = train_step(net, x, target, winograd=True)
        for count in (2, 3, 7):
            _core.set_num_threads(count)
            _, again, others = train_step(net, x, target, winograd=True)
            assert_exact(again, y)
            for a, b in zip(others, gradients, strict=True):
                assert_exact(a, b)
    finally:
        _core.set_num_threads(threads)


def test_weights_are_transformed_in_every_step():
    """Three steps of one plan, against as many plans of one step each."""
    net = conv_net((8, 8), 32, 32, (1, 1, 1, 1))
    x, target = floats(2, 8, 8, 32), floats(2, 8, 8, 32, seed=1)
    one, each = net.state(), net.state()
    plan = _core.Plan(net.graph, one, "train", 2, [MSE], winograd=True)
    for _ in range(3):
        plan.run([x], [target], learning_rate=0.1)
        fresh = _core.Plan(net.graph, each, "train", 2, [MSE], winograd=True)
        fresh.run([x], [target], learning_rate=0.1)
    for i in range(3):
        assert_exact(one.get(i), each.get(i))
    assert np.abs(one.get(1) - net.parameters[1]).max() > 1e-4


@pytest.mark.parametrize(
    "build",
    [
        lambda net, x: net.conv2d(x, 32, size=5),
        lambda net, x: net.conv2d(x, 32, stride=[2, 2]),
        lambda net, x: net.conv2d(x, 32, dilation=[2, 2]),
        lambda net, x: net.conv2d(x, 64, groups=2),
        lambda net, x: net.conv2d(x, 31),
        lambda net, x: net.node("max_pool2d", net.conv2d(x, 32), pool_size=[2, 2]),
    ],
)
def test_what_it_declines_has_the_bits_of_the_plain_sum(build):
    net = Net()
    zeros = net.node("parameter", parameters=[net.parameter(18, 18, 64, scale=0.0)])
    net.output(build(net, net.node("add", net.input(18, 18, 64), zeros)))
    x, target = floats(2, 18, 18, 64), floats(2, *net.graph.shape(net.outputs[0]), seed=1)
    plan, y, gradients = train_step(net, x, target, winograd=True)
    _, plain, others = train_step(net, x, target)
    assert not {FORWARD, BACKWARD} & set(kernels(plan))
    for a, b in zip([y, *gradients], [plain, *others], strict=True):
        assert_exact(a, b)


def small_resnet():
    """With batch normalization, a residual sum and ReLU around 3x3 convolutions."""
    image = Input((8, 8, 2))
    x = layers.Conv2D(32, 3, padding="same", use_bias=False)(image)
    first = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(32, 3, padding="same", use_bias=False)(first)
    x = layers.ReLU()(layers.Add()([layers.BatchNormalization()(x), first]))
    x = layers.Conv2D(33, 3, padding="same", activation="relu")(x)
    return convlet.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def losses_of(weights, **options):
    """Of 30 steps of SGD with momentum on noisy stripes."""
    model = small_resnet()
    model.set_weights(weights)
    loss = convlet.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = convlet.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, loss, device="cpu", **options)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 96)
    x = floats(96, 8, 8, 2)
    x[np.arange(96), :, 2 * labels, 0] += 1.5
    steps = [slice(i % 3 * 32, i % 3 * 32 + 32) for i in range(30)]
    return np.array([float(model.train_on_batch(x[s], labels[s])) for s in steps])


def test_the_loss_falls_as_it_does_with_the_plain_sum():
    set_random_seed(0)
    weights = small_resnet().get_weights()
    plain, winograd = losses_of(weights), losses_of(weights, winograd="always")
    assert plain[-1] < 0.5 * plain[0]
    assert np.abs(winograd - plain).max() > 0  # it was another way
    np.testing.assert_allclose(winograd, plain, rtol=1e-3, atol=1e-4)


def trainable():
    model = Sequential([Input((8, 8, 32)), layers.Conv2D(32, 3, padding="same")])
    return Sequential([*model.layers, layers.Conv2D(32, 3, padding="same")])


@pytest.mark.parametrize(
    ("setting", "modes"),
    [("never", ()), ("inference", ("predict", "test")), ("always", ("predict", "test", "train"))],
)
@pytest.mark.parametrize("environment", [None, "0", "1"])
def test_where_the_setting_allows_it(monkeypatch, setting, modes, environment):
    if environment is None:
        monkeypatch.delenv("CONVLET_WINOGRAD", raising=False)
    else:
        monkeypatch.setenv("CONVLET_WINOGRAD", environment)
    model = trainable()
    model.compile("sgd", "mse", device="cpu", winograd=setting)
    x = floats(2, 8, 8, 32)
    model.train_on_batch(x, x)
    for mode in ("predict", "test", "train"):
        found = kernels(model._engine().plan(mode, 2))
        allowed = mode in modes and environment != "0"
        assert (FORWARD in found) == allowed
        assert (BACKWARD in found) == (allowed and mode == "train")


def test_training_is_plain_unless_asked():
    model = trainable()
    model.compile("sgd", "mse", device="cpu")
    assert model.winograd == "inference"
    x = floats(2, 8, 8, 32)
    model.train_on_batch(x, x)
    assert not {FORWARD, BACKWARD} & set(kernels(model._engine().plan("train", 2)))


def test_the_file_keeps_the_setting(tmp_path):
    model = trainable()
    model.compile("sgd", "mse", device="cpu", winograd="always")
    x = floats(2, 8, 8, 32)
    model.train_on_batch(x, x)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors", device="cpu")
    assert loaded.winograd == "always"
    model.train_on_batch(x, x)
    loaded.train_on_batch(x, x)
    for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
        assert_exact(a, b)


def test_other_precisions_do_not_heed_it():
    _core.set_bfloat16("emulated")
    try:
        model = trainable()
        model.compile("sgd", "mse", device="cpu", precision="bfloat16", winograd="always")
        x = floats(2, 8, 8, 32)
        model.train_on_batch(x, x)
        assert not {FORWARD, BACKWARD} & set(kernels(model._engine().plan("train", 2)))
    finally:
        _core.set_bfloat16("measured")
