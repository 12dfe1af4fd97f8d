"""batch_norm fused with what surrounds it: the same training, and the same predictions but for
rounding."""

import numpy as np
import pytest

import convlet
from convlet import _core, layers
from nets import MSE, Net
from reference import assert_exact, floats

APPLIED = ("relu", "relu6", "silu", "hard_swish")


def head(net, x):
    net.output(net.dense(net.node("global_avg_pool2d", x), 3))
    return net


def plain(activation="relu", **attributes):
    """Two convolutions with batch_norm and an activation."""
    net = Net()
    x = net.input(7, 6, 3)
    for channels, bias in ((5, False), (9, True)):
        x = net.batch_norm(net.conv2d(x, channels, bias=bias), **attributes)
        x = net.node("activation", x, activation=activation)
    return head(net, x)


def residual(last="relu", swapped=False, projected=False, both=False, **attributes):
    """A residual block. The shortcut may be a convolution and batch_norm, before or after the main
    path in the graph."""
    net = Net()
    x = net.conv2d(net.input(7, 6, 3), 8, activation="relu")

    def shortcut():
        return net.batch_norm(net.conv2d(x, 8, size=1), **attributes) if projected else x

    if both:
        y = net.batch_norm(net.conv2d(x, 8, padding="same"), **attributes)
        z = shortcut()
    else:
        z = shortcut()
        y = net.node(
            "activation", net.batch_norm(net.conv2d(x, 8, padding="same")), activation="relu"
        )
        y = net.batch_norm(net.conv2d(y, 8, padding="same", bias=False), **attributes)
    s = net.node("add", *((z, y) if swapped else (y, z)))
    if last:
        s = net.node("activation", s, activation=last)
    # The block's output is the residual of another, and is read by a third.
    t = net.batch_norm(net.conv2d(s, 8, padding="same"))
    return head(net, net.node("multiply", net.node("add", t, s), s))


def dense():
    net = Net()
    x = net.batch_norm(net.dense(net.input(11), 6))
    x = net.node("activation", x, activation="relu")
    net.output(net.batch_norm(net.dense(x, 3, bias=False)))
    return net


def depthwise():
    net = Net()
    x = net.conv2d(net.input(8, 8, 6), 12, groups=6, padding="same", bias=False)
    x = net.node("activation", net.batch_norm(x), activation="relu6")
    x = net.node("activation", net.batch_norm(net.conv2d(x, 8, groups=4)), activation="gelu")
    return head(net, x)


GRAPHS = {
    **{f"plain_{name}": lambda name=name: plain(name) for name in (*APPLIED, "gelu", "sigmoid")},
    "plain_frozen": lambda: plain(training=False),
    "plain_not_trainable": lambda: plain(trainable=False),
    "plain_no_scale": lambda: plain(scale=False),
    "plain_no_center": lambda: plain(center=False),
    "residual": residual,
    "residual_swapped": lambda: residual(swapped=True),
    "residual_linear": lambda: residual(last=None),
    "residual_silu": lambda: residual(last="silu"),
    "residual_relu6": lambda: residual(last="relu6"),
    "residual_projected": lambda: residual(projected=True),
    "residual_projected_last": lambda: residual(projected=True, both=True),
    "residual_not_trainable": lambda: residual(trainable=False, training=False),
    "dense": dense,
    "depthwise": depthwise,
}


@pytest.fixture(params=GRAPHS)
def net(request):
    return GRAPHS[request.param]()


def target_of(net, n):
    return [floats(n, *net.graph.shape(net.outputs[0]), seed=5)]


def steps(net, mode, fuse):
    losses = [] if mode == "predict" else [MSE]
    return _core.Plan(net.graph, net.state(), mode, 4, losses, fuse=fuse).steps()


def kernels(net, mode, fuse):
    return [step["kernel"] for step in steps(net, mode, fuse)]


@pytest.mark.parametrize(("n", "batch"), [(5, 5), (2, 6)])
def test_training_is_the_same_bits(net, n, batch):
    """Losses, outputs, gradients, weights and moving averages of three steps."""
    results = []
    for fuse in (True, False):
        state = net.state({"kind": "sgd", "momentum": 0.9})
        plan = _core.Plan(net.graph, state, "train", batch, [MSE], fuse=fuse)
        run = []
        for step in range(3):
            loss = plan.run(net.data(n, seed=step), target_of(net, n), learning_rate=0.05)
            run += [loss, plan.output(0)]
        gradients = [state.gradient(i) for i, train in enumerate(net.trainable) if train]
        parameters = [state.get(i) for i in range(len(net.parameters))]
        results.append([*run, *gradients, *parameters])
    for fused, unfused in zip(*results, strict=True):
        assert np.isfinite(fused).all()
        assert_exact(fused, unfused)


@pytest.mark.parametrize("mode", ["predict", "test"])
def test_predictions_differ_by_rounding_only(net, mode):
    """Folding rounds each weight once more: the outputs differ by a few units of float32."""
    inputs = net.data(5)
    outputs = []
    for fuse in (True, False):
        plan = _core.Plan(
            net.graph, net.state(), mode, 5, [] if mode == "predict" else [MSE], fuse=fuse
        )
        if mode == "predict":
            outputs.append(plan.predict(inputs)[0])
        else:
            plan.run(inputs, target_of(net, 5))
            outputs.append(plan.output(0))
    largest = np.abs(outputs[1]).max()
    np.testing.assert_allclose(outputs[0], outputs[1], atol=3e-6 * largest, rtol=0)


def test_what_is_fused():
    for activation in APPLIED:
        fused, unfused = (kernels(plain(activation), "train", fuse) for fuse in (True, False))
        assert "activation" in unfused
        assert "activation_backward" in unfused
        assert "activation" not in fused
        assert "activation_backward" not in fused
        assert fused.count("batch_norm") == fused.count("batch_norm_backward") == 2
    assert "activation" in kernels(plain("tanh"), "train", True)

    fused, unfused = (kernels(residual(), "train", fuse) for fuse in (True, False))
    assert unfused.count("activation") == 3
    assert "activation" not in fused
    for fuse, sums in ((True, 0), (False, 2)):
        layers_ = [s["layer"] for s in steps(residual(), "train", fuse) if s["name"] == "forward"]
        assert sum(name.startswith("add") for name in layers_) == sums
    # The second activation's gradient needs its input, the sum.
    assert "activation" in kernels(residual(last="silu"), "train", True)

    for make in (plain, dense, depthwise):
        fused = kernels(make(), "predict", True)
        assert fused.count("fold_batch_norm") == 2
        assert "batch_norm" not in fused
        assert "activation" not in fused
        assert "batch_norm" in kernels(make(), "predict", False)
        assert "fold_batch_norm" not in kernels(make(), "predict", False)
        assert "fold_batch_norm" not in kernels(make(), "train", True)
    assert "activation" not in kernels(residual(), "predict", True)


def test_a_value_that_is_read_elsewhere_stays():
    """The output of a convolution, a batch_norm or a sum that something else reads is made."""
    net = Net()
    a = net.conv2d(net.input(6, 6, 3), 4, padding="same")
    b = net.batch_norm(a)
    c = net.node("add", b, net.conv2d(b, 4, padding="same"))
    d = net.node("activation", c, activation="relu")
    e = net.batch_norm(net.conv2d(d, 4, padding="same"))
    f = net.node("activation", e, activation="relu")
    for value in (a, c, e, net.node("add", f, d)):
        net.output(value)
    inputs = net.data(3)
    values = net.forward(inputs)
    for fuse in (True, False):
        plan = _core.Plan(net.graph, net.state(), "predict", 3, fuse=fuse)
        for got, value in zip(plan.predict(inputs), net.outputs, strict=True):
            np.testing.assert_allclose(got, values[value], rtol=1e-5, atol=1e-5)


def test_folded_weights_follow_the_parameters():
    """After a training step, after set, and after another batch size made the plan anew."""
    net = plain()
    state = net.state()
    folded = _core.Plan(net.graph, state, "predict", 6)
    plain_plan = _core.Plan(net.graph, state, "predict", 6, fuse=False)
    train = _core.Plan(net.graph, state, "train", 6, [MSE])
    inputs = net.data(6)

    def agree():
        got, expected = folded.predict(inputs)[0], plain_plan.predict(inputs)[0]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        return got

    outputs = [agree(), agree()]
    assert_exact(outputs[0], outputs[1])
    train.run(inputs, target_of(net, 6), learning_rate=0.1)
    outputs.append(agree())
    for parameter in range(5):  # kernel, gamma, beta, moving mean, moving variance
        state.set(parameter, state.get(parameter) + np.float32(0.25))
        outputs.append(agree())
    for before, after in zip(outputs[1:], outputs[2:], strict=False):
        assert np.abs(before - after).max() > 1e-4
    folded.predict([x[:1] for x in inputs])
    agree()
    threads = _core.num_threads()
    _core.set_num_threads(threads + 1)
    try:
        agree()
    finally:
        _core.set_num_threads(threads)
    agree()


def test_a_parameter_that_is_not_finite_is_named():
    net = plain()
    state = net.state()
    for parameter in range(5):
        bad = net.parameters[parameter].copy()
        bad.flat[0] = np.nan
        state.set(parameter, bad)
        plan = _core.Plan(net.graph, state, "test", 4, [MSE])
        assert np.isnan(plan.run(net.data(4), target_of(net, 4))[0])
        assert plan.first_non_finite() == f"parameter 'p{parameter}'"
        state.set(parameter, net.parameters[parameter])


def test_averages_move_with_every_batch_of_an_accumulated_update():
    net = plain()
    state = net.state({"kind": "sgd", "accumulation_steps": 4})
    plan = _core.Plan(net.graph, state, "train", 4, [MSE])
    before = [state.get(i) for i in range(len(net.parameters))]
    plan.run(net.data(4), target_of(net, 4), learning_rate=0.1)
    for i, train in enumerate(net.trainable):
        assert np.array_equal(state.get(i), before[i]) == train


def test_a_model_predicts_after_training_what_its_layers_compute():
    """fit, then predict (folded) against each layer by itself."""
    inputs = convlet.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(x))
    y = layers.BatchNormalization(momentum=0.5)(layers.Conv2D(6, 3, padding="same")(x))
    x = layers.ReLU()(layers.Add()([x, y]))
    outputs = layers.Dense(4, activation="softmax")(layers.Flatten()(x))
    model = convlet.Model(inputs, outputs)
    model.compile("adam", "sparse_categorical_crossentropy")
    images, labels = floats(40, 8, 8, 3), np.arange(40) % 4
    first = model.predict(images, verbose=0)
    for _ in range(2):
        model.fit(images, labels, batch_size=16, epochs=2, verbose=0)
        computed = {inputs.name: images}
        for node in model.nodes_in_order:
            arrays = [computed[t.name] for t in node.inputs]
            computed[node.layer.name] = node.layer(arrays if len(arrays) > 1 else arrays[0])
        predicted = model.predict(images, verbose=0)
        np.testing.assert_allclose(predicted, computed[model.layers[-1].name], atol=1e-5)
        assert np.abs(predicted - first).max() > 1e-3
