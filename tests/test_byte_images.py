"""Batches of bytes whose first layer reads them as they are, where the device has kernels for that:
the bits are those of the same numbers as float32, and nothing but the steps shows which it was."""

import numpy as np
import pytest

from convlet import Input, Sequential, _core, layers, load_model, optimizers
from convlet.losses import SparseCategoricalCrossentropy
from convlet.utils import set_random_seed
from nets import MSE, SPARSE, Net
from reference import assert_exact
from test_products import supported

READS_BYTES = _core.op_device() != "cpu"
PRECISIONS = list(supported())
LOGITS = SPARSE | {"from_logits": True}
SCALE = {"factor": 1 / 127.5, "offset": -1.0}  # so that a byte of 0 is not a padding of 0

# H, W, C, K, window, scale, pooling, options: with lines that are whole pieces of four bytes and
# not, parts of a line and several lines, windows that tiles take and that they do not
FIRST_LAYERS = {
    "one channel": (14, 14, 1, 32, 3, SCALE, None, {}),
    "two": (6, 31, 2, 33, 3, SCALE, None, {"pad": [1, 0, 4, 0]}),
    "three": (12, 12, 3, 5, 3, SCALE, None, {"padding": "same"}),
    "not scaled": (9, 15, 3, 8, 5, None, None, {"padding": "same"}),
    "no offset": (10, 11, 3, 8, 3, {"factor": 1 / 255}, None, {}),
    "wide": (2, 141, 3, 33, 2, SCALE, None, {"padding": "same"}),
    "strided": (18, 21, 3, 9, 5, SCALE, None, {"pad": [2, 2, 1, 2], "stride": [2, 2]}),
    "dilated": (20, 15, 3, 9, 3, SCALE, None, {"stride": [2, 1], "dilation": [2, 1]}),
    "pooled": (12, 20, 3, 36, 3, SCALE, (2, 2), {"padding": "same"}),
    "pooled, one channel": (14, 15, 1, 8, 3, None, (2, 2), {}),
    "pooled, parts of a line": (3, 141, 3, 8, 2, SCALE, (2, 2), {}),
    "pooled, odd channels": (10, 13, 2, 5, 3, SCALE, (2, 2), {"padding": "same"}),
    "pooled by 3": (12, 13, 3, 8, 3, SCALE, (3, 3), {"padding": "same"}),
    "pooled by 1x4": (5, 35, 3, 4, 3, SCALE, (1, 4), {"padding": "same"}),
}
# With a normalization between scale and convolution, or by itself: pieces of four bytes begin with
# any channel.
NORMALIZED = {
    "one channel": (14, 14, 1, 5, 3, None, None, {"padding": "same"}),
    "two": (6, 31, 2, 5, 3, SCALE, None, {"pad": [1, 0, 4, 0]}),
    "two in pieces": (9, 12, 2, 8, 3, None, None, {"padding": "same"}),
    "three": (18, 20, 3, 9, 5, None, None, {"pad": [2, 2, 1, 2], "stride": [2, 2]}),
    "three, odd lines": (2, 141, 3, 5, 2, SCALE, None, {"padding": "same"}),
    "pooled": (8, 20, 3, 8, 3, SCALE, (2, 2), {"padding": "same"}),
    "pooled, odd channels": (10, 13, 2, 5, 3, None, (2, 2), {"padding": "same"}),
}
FIRST_LAYERS |= {f"normalized, {name}": (*of, True) for name, of in NORMALIZED.items()}
# These are converted.
OTHERS = {
    "four channels": (9, 9, 4, 8, 3, SCALE, None, {}),
    "four channels, normalized": (9, 9, 4, 8, 3, None, None, {}, True),
    "small": (5, 5, 3, 8, 3, SCALE, None, {}),
    "a column apart": (12, 12, 3, 8, 3, SCALE, None, {"dilation": [1, 2]}),
    "by channel": (12, 12, 3, 6, 3, SCALE, None, {"groups": 3}),
}


def normalized(net, x, scaled=False):
    """x by numbers of its own for each channel, as the layer Normalization does it."""
    x = net.batch_norm(x, scale=False, center=False, training=False, epsilon=1e-14)
    if not scaled:
        mean, variance = net.parameters[-2:]
        mean += 127
        variance *= 60**2
    return x


def network(h, w, c, k, size, scale, pool, options, norm=False):
    net = Net()
    x = net.input(h, w, c)
    if scale:
        x = net.node("scale", x, **scale)
    if norm:
        x = normalized(net, x, bool(scale))
    x = net.node("activation", net.conv2d(x, k, size=size, **options), activation="relu")
    if pool:
        x = net.node("max_pool2d", x, pool_size=list(pool))
    net.output(net.dense(net.flatten(x), 3))
    return net


def pixels(net, n, seed=1):
    shape = net.graph.shape(net.inputs[0])
    return np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)


def kernels(plan):
    return [step["kernel"] for step in plan.steps()]


def reads_bytes(plan):
    return "conv2d_bytes" in kernels(plan)


def trained(net, images, steps=1, **options):
    """Results, outputs and gradients of steps of training and parameters after them, what the
    network then gives in the other modes; and the plan that trained."""
    state = net.state({"kind": "sgd", "momentum": 0.9})
    plan = _core.Plan(net.graph, state, "train", 5, [LOGITS], **options)
    found = []
    for _ in range(steps):
        labels = np.arange(len(images)) % 3
        found += [plan.run([images], [labels], learning_rate=1e-3), plan.output(0)]
    found += [state.gradient(i) for i, trains in enumerate(net.trainable) if trains]
    found += [state.get(i) for i in range(len(net.parameters))]
    test = _core.Plan(net.graph, state, "test", 5, [LOGITS], **options)
    found += [test.run([images], [labels]), test.output(0)]
    predict = _core.Plan(net.graph, state, "predict", 5, **options)
    found += predict.predict([images])
    if images.dtype == np.uint8:
        assert reads_bytes(plan) == reads_bytes(test) == reads_bytes(predict)
    return found, plan


def check(net, n=2, **options):
    """Returns whether bytes were read as they are."""
    images = pixels(net, n)
    found, plan = trained(net, images, **options)
    expected, converting = trained(net, images.astype(np.float32), **options)
    for a, b in zip(found, expected, strict=True):
        assert_exact(a, b)
    assert not reads_bytes(converting)
    if reads_bytes(plan):
        less = 3 * images[0].size * 5 - 64  # buffers begin at multiples of that
        assert plan.memory()["live_set"] <= converting.memory()["live_set"] - less
        assert kernels(plan)[0] == "conv2d_bytes"
    return reads_bytes(plan)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", FIRST_LAYERS)
def test_the_bits_are_those_of_float32_images(name, precision):
    net = network(*FIRST_LAYERS[name])
    assert check(net, precision=precision) == READS_BYTES


@pytest.mark.parametrize(("n", "steps"), [(1, 1), (5, 3)])
def test_more_steps_and_other_batches(n, steps):
    """From the third step on a device that records replays."""
    for name in ("three", "pooled, one channel", "normalized, pooled"):
        assert check(network(*FIRST_LAYERS[name]), n, steps=steps) == READS_BYTES


def test_an_empty_batch():
    net = network(*FIRST_LAYERS["pooled"])
    plan = _core.Plan(net.graph, net.state(), "predict", 5)
    (empty,) = plan.predict([pixels(net, 0)])
    assert empty.shape == (0, 3)
    assert reads_bytes(plan) == READS_BYTES


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_convert(name):
    assert not check(network(*OTHERS[name]))


def test_only_a_layer_that_alone_reads_the_input():
    def two_layers(net, x):
        return net.node("add", net.conv2d(x, 8), net.conv2d(x, 8))

    def scaled_apart(net, x):
        scaled = net.node("scale", x, factor=0.5)
        return net.node("add", net.conv2d(scaled, 3, padding="same"), scaled)

    def as_output(net, x):
        net.output(x)
        return net.conv2d(x, 8)

    def scaled_twice(net, x):
        return net.conv2d(net.node("scale", net.node("scale", x, factor=0.1), factor=0.1), 8)

    def noisy(net, x):
        return net.conv2d(net.node("dropout", x, rate=0.5), 8)

    def normalized_apart(net, x):
        x = normalized(net, x)
        return net.node("add", net.conv2d(x, 3, padding="same"), x)

    def normalized_twice(net, x):
        return net.conv2d(normalized(net, normalized(net, x), scaled=True), 8)

    def scaled_later(net, x):
        return net.conv2d(net.node("scale", normalized(net, x), factor=0.5), 8)

    def activated(net, x):
        return net.conv2d(net.node("activation", normalized(net, x), activation="relu"), 8)

    def by_the_batch(net, x):
        return net.conv2d(net.batch_norm(x, scale=False, center=False), 8)

    def with_gamma(net, x):
        return net.conv2d(net.batch_norm(x, center=False, training=False), 8)

    def with_beta(net, x):
        return net.conv2d(net.batch_norm(x, scale=False, training=False, trainable=False), 8)

    heads = (two_layers, scaled_apart, as_output, scaled_twice, noisy, normalized_apart)
    heads += (normalized_twice, scaled_later, activated, by_the_batch, with_gamma, with_beta)
    for head in heads:
        net = Net()
        net.output(net.dense(net.flatten(head(net, net.input(12, 12, 3))), 3))
        images = pixels(net, 2)
        target = np.zeros((2, 3), np.float32)
        outputs = []
        for x in (images, images.astype(np.float32)):
            last = len(net.outputs) - 1
            plan = _core.Plan(net.graph, net.state(), "train", 5, [MSE | {"output": last}])
            plan.run([x], [target], learning_rate=0.01)
            plan.run([x], [target], learning_rate=0.01)
            assert not reads_bytes(plan)
            outputs.append(plan.output(last))
        assert_exact(*outputs)


def test_nothing_is_fused_where_nothing_may_be():
    assert not check(network(*FIRST_LAYERS["pooled"]), fuse=False)


@pytest.mark.parametrize("norm", [False, True])
def test_a_normalization_behind_it_and_padding_before_it(norm):
    """In other modes than training the first is folded into the weights; the second becomes the
    convolution's."""
    net = Net()
    x = net.node("scale", net.input(15, 15, 3), **SCALE)
    x = normalized(net, x, scaled=True) if norm else x
    x = net.conv2d(net.node("pad2d", x, pad=[1, 2, 2, 1]), 8, bias=False)
    x = net.node("activation", net.batch_norm(x), activation="relu")
    net.output(net.dense(net.flatten(x), 3))
    assert check(net) == READS_BYTES


def test_moving_averages():
    """Training takes the statistics of the batch; the other modes are given them."""
    net = Net()
    x = net.batch_norm(net.input(12, 12, 3), scale=False, center=False)
    net.output(net.dense(net.flatten(net.conv2d(x, 8)), 3))
    images, state = pixels(net, 5), net.state()
    plan = _core.Plan(net.graph, state, "train", 5, [LOGITS])
    plan.run([images], [np.arange(5) % 3], learning_rate=0.01)
    assert not reads_bytes(plan)
    plan = _core.Plan(net.graph, state, "predict", 5)
    (found,) = plan.predict([images])
    assert reads_bytes(plan) == READS_BYTES
    assert_exact(found, plan.predict([images.astype(np.float32)])[0])


@pytest.mark.parametrize("name", ["normalized, three", "normalized, pooled, odd channels"])
def test_other_statistics_between_steps(name):
    """A step that is replayed reads those of now."""
    net = network(*FIRST_LAYERS[name])
    images, labels = pixels(net, 5), np.arange(5) % 3
    runs = []
    for x in (images, images.astype(np.float32)):
        state = net.state()
        plan = _core.Plan(net.graph, state, "train", 5, [LOGITS])
        test = _core.Plan(net.graph, state, "test", 5, [LOGITS])
        results = []
        for step in range(5):
            if step > 2:
                for parameter in (0, 1):
                    state.set(parameter, state.get(parameter) * np.float32(1.25))
            results.append(plan.run([x], [labels], learning_rate=1e-3))
            results += [plan.output(0), test.run([x], [labels])]
        assert reads_bytes(plan) == reads_bytes(test) == (READS_BYTES and x is images)
        runs.append(results + [state.get(i) for i in range(len(net.parameters))])
    for a, b in zip(*runs, strict=True):
        assert_exact(a, b)


def test_inputs_of_which_one_is_bytes():
    net = Net()
    x = net.flatten(net.conv2d(net.node("scale", net.input(12, 12, 3), **SCALE), 8))
    net.output(net.dense(net.node("concatenate", x, net.input(4)), 3))
    images, numbers = pixels(net, 5), np.random.default_rng(2).integers(0, 9, (5, 4))
    plan = _core.Plan(net.graph, net.state(), "predict", 5)
    found = plan.predict([images, numbers.astype(np.uint8)])
    assert reads_bytes(plan) == READS_BYTES
    expected = plan.predict([images.astype(np.float32), numbers.astype(np.float32)])
    assert not reads_bytes(plan)
    assert_exact(found[0], expected[0])


def test_batches_of_several_types():
    """A plan that has been given both converts from then on."""
    net = network(*FIRST_LAYERS["pooled, one channel"])
    images = [pixels(net, 5, seed) for seed in range(6)]
    types = [np.float32, np.uint8, np.uint8, np.float64, np.uint8, np.int32]
    readers = [False, True, True, False, False, False]
    runs = []
    for given in ([np.float32] * 6, types):
        state = net.state({"kind": "adam"})
        plan = _core.Plan(net.graph, state, "train", 5, [LOGITS])
        results = []
        for x, dtype, reads in zip(images, given, readers, strict=True):
            results.append(plan.run([x.astype(dtype)], [np.arange(5) % 3], learning_rate=0.01))
            results.append(plan.output(0))
            if given is types:
                assert reads_bytes(plan) == (reads and READS_BYTES)
        runs.append(results + [state.get(i) for i in range(len(net.parameters))])
    for a, b in zip(*runs, strict=True):
        assert_exact(b, a)


@pytest.mark.parametrize(
    "name", ["three", "dilated", "pooled, one channel", "normalized, two in pieces"]
)
def test_samples_on_the_device(name):
    """By an order, in lines of 16 bytes, of 4 and of others, two steps under way at a time."""
    net = network(*FIRST_LAYERS[name])
    images, labels = pixels(net, 11), np.arange(11) % 3
    order = np.array([9, 0, 4, 7, 1, 10, 3, 5, 2, 8], np.int64)
    runs = []
    for dtype in (np.uint8, np.float32):
        state = net.state({"kind": "adam"})
        plan = _core.Plan(net.graph, state, "train", 5, [LOGITS])
        data = _core.Dataset(_core.op_device(), [images.astype(dtype)], [labels])
        results = []
        for epoch in range(3):
            data.set_order(np.roll(order, epoch))
            steps = [plan.start_from(data, first, 5, learning_rate=0.01) for first in (0, 5)]
            results += [plan.finish(step) for step in steps]
        assert reads_bytes(plan) == (READS_BYTES and dtype == np.uint8)
        runs.append(results + [state.get(i) for i in range(len(net.parameters))])
    for a, b in zip(*runs, strict=True):
        assert_exact(a, b)


def test_what_is_not_finite_is_found():
    """The batch of bytes stays for it, though steps after it have been started."""
    net = network(*FIRST_LAYERS["pooled, one channel"])
    for parameter, place in ((0, "parameter 'p0'"), (2, "parameter 'p2'")):
        state = net.state()
        plan = _core.Plan(net.graph, state, "train", 5, [LOGITS])
        good = state.get(parameter)
        state.set(parameter, np.full_like(good, np.inf))
        steps = [plan.start([pixels(net, 5, seed)], [np.zeros(5, int)]) for seed in range(2)]
        assert not np.isfinite(plan.finish(steps[0])[0])
        assert len(plan.finish(steps[1])) == 0
        assert plan.first_non_finite() == place
        state.set(parameter, good)
        assert np.isfinite(plan.run([pixels(net, 5)], [np.zeros(5, int)])).all()
        assert plan.first_non_finite() == ""
        assert reads_bytes(plan) == READS_BYTES


def test_a_scale_that_overflows_is_named():
    net = network(12, 12, 3, 8, 3, {"factor": 3e38}, None, {})
    plan = _core.Plan(net.graph, net.state(), "train", 5, [LOGITS])
    plan.run([pixels(net, 5)], [np.zeros(5, int)])
    assert plan.first_non_finite() == "layer 'scale0'"


def test_statistics_that_are_not_numbers_are_named():
    """And those that make none of a pixel are found in the layer that applies them."""
    net = network(*FIRST_LAYERS["normalized, three"])
    own = "layer 'conv2d1'" if READS_BYTES else "layer 'batch_norm0'"
    for mean, variance, place in (
        (np.nan, 1.0, "parameter 'p0'"),
        (1.0, np.nan, "parameter 'p1'"),
        (1.0, -1.0, own),
        (3e38, 1e-3, own),
    ):
        state = net.state()
        for parameter, value in enumerate((mean, variance)):
            state.set(parameter, np.full(3, value, np.float32))
        plan = _core.Plan(net.graph, state, "train", 5, [LOGITS])
        plan.run([pixels(net, 5)], [np.zeros(5, int)])
        assert plan.first_non_finite() == place
        assert reads_bytes(plan) == READS_BYTES


MEAN, VARIANCE = [120.0, 110.0, 100.0], [3000.0, 3500.0, 4000.0]
HEADS = {
    "rescaled": lambda: [layers.Rescaling(1 / 255)],
    "normalized": lambda: [layers.Normalization(mean=MEAN, variance=VARIANCE)],
    "both": lambda: [layers.Rescaling(1 / 255), layers.Normalization(mean=0.5, variance=0.08)],
}


@pytest.mark.parametrize("head", HEADS)
def test_a_model(head, tmp_path):
    """fit, evaluate and predict, resident and not, of pixels and of the same as floats."""
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 256, (20, 10, 10, 3)).astype(np.uint8), rng.integers(0, 3, 20)
    histories = []
    for images in (x, x.astype(np.float32)):
        set_random_seed(4)
        model = Sequential(
            [
                Input((10, 10, 3)),
                *HEADS[head](),
                layers.Conv2D(8, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
        loss = SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizers.Adam(0.01), loss, metrics=["accuracy"], device=_core.op_device())
        history = model.fit(images, y, batch_size=8, epochs=2, validation_split=0.2, verbose=0)
        results = [model.evaluate(images, y, verbose=0), model.predict(images, verbose=0)]
        plan = model._engine().plan("train", 8)
        assert reads_bytes(plan) == (READS_BYTES and images is x)
        model.save(tmp_path / "m.safetensors")
        loaded = load_model(tmp_path / "m.safetensors", device=_core.op_device())
        assert_exact(loaded.predict(images, verbose=0), results[-1])
        model.set_weights([1.25 * w for w in model.get_weights()])
        results.append(model.evaluate(images, y, verbose=0))
        histories.append([*history.history.values(), *results])
    for a, b in zip(*histories, strict=True):
        assert_exact(np.asarray(a), np.asarray(b))
