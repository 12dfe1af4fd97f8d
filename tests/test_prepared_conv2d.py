"""Convolutions whose weights are laid out once for many batches: packed, and Winograd's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convlet import Input, Sequential, _core, layers, ops
from reference import AWKWARD, assert_exact, error, floats, integers, run_torch

BOTH = pytest.mark.parametrize("winograd", [True, False])


class Layer:
    """act(conv2d(x, w, b) + residual) of 3x3 windows, or of another kernel shape."""

    def __init__(self, kernel, image, pad=1, residual=False, activation=None, seed=0, whole=False):
        """kernel: (R,S,C,K). image: (H,W). whole: small whole numbers."""
        numbers = integers if whole else floats
        self.pad, self.activation, self.kernel = pad, activation, kernel
        self.image, self.residual = image, residual
        fan_in = np.prod(kernel[:3])
        self.w = numbers(*kernel, seed=seed) / np.float32(1 if whole else np.sqrt(fan_in))
        self.b = numbers(kernel[3], seed=seed + 1)
        self.graph = _core.Graph()
        values = [self.graph.input("x", (*image, kernel[2]))]
        ids = [self.graph.parameter("w", kernel), self.graph.parameter("b", kernel[3:])]
        attributes = {"pad": [pad] * 4}
        y = self.graph.node("conv2d", "conv", values, ids, attributes)
        if residual:
            values.append(self.graph.input("residual", self.graph.shape(y)))
            y = self.graph.node("add", "add", [y, values[1]])
        if activation:
            y = self.graph.node("activation", "act", [y], [], {"activation": activation})
        self.graph.output(y)
        self.out_shape = self.graph.shape(y)
        self.state = _core.State(self.graph)
        self.set(self.w, self.b)

    def set(self, w, b):
        self.w, self.b = w, b
        self.state.set(0, w)
        self.state.set(1, b)

    def inputs(self, n, seed=7, whole=False):
        numbers = integers if whole else floats
        x = [numbers(n, *self.image, self.kernel[2], seed=seed)]
        return x + [numbers(n, *self.out_shape, seed=seed + 1)] * self.residual

    def plan(self, batch, **options):
        return _core.Plan(self.graph, self.state, "predict", batch, **options)

    def torch(self, inputs, dtype):
        def function(x, w, b, *residual):
            y = F.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), b, padding=self.pad)
            y = y.permute(0, 2, 3, 1) + sum(residual)
            return {None: lambda t: t, "relu": F.relu, "gelu": F.gelu}[self.activation](y)

        return run_torch(function, [inputs[0], self.w, self.b, *inputs[1:]], dtype=dtype)[0]


def kernels(plan):
    return [step["kernel"] for step in plan.steps()]


WINOGRAD_CASES = [
    # C, K, (H,W), pad, residual, activation
    (32, 32, (8, 8), 1, False, None),
    (33, 66, (9, 17), 1, True, "relu"),
    (66, 33, (12, 10), 0, False, "relu"),
    (99, 99, (19, 11), 0, True, "gelu"),
    (64, 128, (16, 16), 1, True, None),
    (256, 64, (8, 8), 2, False, "relu"),
    (544, 35, (8, 9), 1, True, "relu"),
]


@pytest.mark.parametrize("case", WINOGRAD_CASES)
def test_winograd_is_accurate(case):
    """docs/performance.md: the root of the mean square error is up to 3 times torch's, that of the
    plain sum."""
    channels, outputs, image, pad, residual, activation = case
    layer = Layer((3, 3, channels, outputs), image, pad, residual, activation)
    plan = layer.plan(5)
    assert kernels(plan) == ["conv2d_winograd"] * 2  # prepared, run
    inputs = layer.inputs(5)
    exact = layer.torch(inputs, torch.float64)
    plain, got = layer.torch(inputs, torch.float32), plan.predict(inputs)[0]
    assert np.square(got - exact).mean() ** 0.5 <= 4 * np.square(plain - exact).mean() ** 0.5
    assert error(got, exact) <= 6 * error(plain, exact)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@BOTH
def test_neither_batch_nor_threads_change_the_bits(n, winograd):
    layer = Layer((3, 3, 64, 99), (17, 9), residual=True, activation="relu")
    inputs = layer.inputs(5)
    options = {"winograd": winograd}
    whole = layer.plan(5, **options).predict(inputs)[0]
    assert_exact(layer.plan(n, **options).predict([x[:n] for x in inputs])[0], whole[:n])
    threads = _core.num_threads()
    try:
        for count in (1, 2, 3, 7):
            _core.set_num_threads(count)
            assert_exact(layer.plan(n, **options).predict([x[:n] for x in inputs])[0], whole[:n])
    finally:
        _core.set_num_threads(threads)


@pytest.mark.parametrize("size", AWKWARD)
def test_packed_has_the_bits_of_conv2d(size):
    """With bias, residual and activation in the kernel, against one op at a time."""
    layer = Layer((3, 3, size, size), (7, 9), residual=True, activation="relu")
    fused, plain = layer.plan(3, winograd=False), layer.plan(3, winograd=False, fuse=False)
    assert kernels(fused) == ["conv2d_packed"] * 2
    assert kernels(plain)[-2:] == ["binary", "activation"]
    inputs = layer.inputs(3)
    assert_exact(fused.predict(inputs)[0], plain.predict(inputs)[0])


def test_whole_numbers_are_exact_when_packed():
    layer = Layer((3, 3, 31, 17), (9, 8), residual=True, activation="relu", whole=True)
    inputs = layer.inputs(3, whole=True)
    expected = layer.torch(inputs, torch.float32)
    assert_exact(layer.plan(3, winograd=False).predict(inputs)[0], expected)


def block(channels, image, activation, same=False):
    """A graph: act(conv2d(tanh(x), w, b) + tanh(residual)), or with one value in both places."""
    graph = _core.Graph()

    def made(name):  # by a step, so that its memory is free after its last use; inputs are kept
        value = graph.input(name, (*image, channels))
        return graph.node("activation", f"of_{name}", [value], [], {"activation": "tanh"})

    x, kernel = made("x"), (3, 3, channels, channels)
    residual = x if same else made("residual")
    parameters = [graph.parameter("w", kernel), graph.parameter("b", kernel[3:])]
    y = graph.node("conv2d", "conv", [x], parameters, {"pad": [1] * 4})
    y = graph.node("add", "add", [y, residual])
    y = graph.node("activation", "act", [y], [], {"activation": activation})
    graph.output(graph.node("activation", "last", [y], [], {"activation": "sigmoid"}))
    state = _core.State(graph)
    state.set(0, floats(*kernel) / np.float32(3 * channels**0.5))
    state.set(1, floats(channels))
    return graph, state


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize(("channels", "in_place"), [(7, True), (31, False), (64, True)])
def test_the_sum_takes_the_place_of_the_residual(channels, in_place, activation):
    """Of 64 channels by Winograd's convolution; 31 make sums of more terms than one stretch."""
    image, n = (9, 10), 3
    graph, state = block(channels, image, activation)
    inputs = [floats(n, *image, channels, seed=seed) for seed in (1, 2)]
    fused = _core.Plan(graph, state, "predict", n)
    plain = _core.Plan(graph, state, "predict", n, fuse=False)
    assert_exact(fused.predict(inputs)[0], plain.predict(inputs)[0])
    size = (4 * n * image[0] * image[1] * channels + 63) // 64 * 64
    # What is not kept: the convolution's x, and the residual unless its place is kept for y.
    passing = [b for b in fused.blocks() if b["bytes"] == size and b["last"] < len(fused.steps())]
    assert len(passing) == (1 if in_place else 2)


def test_a_value_that_is_also_read_keeps_its_place():
    for channels in (7, 64):
        graph, state = block(channels, (9, 10), "relu", same=True)
        x = floats(3, 9, 10, channels)
        fused = _core.Plan(graph, state, "predict", 3)
        assert_exact(
            fused.predict([x])[0],
            _core.Plan(graph, state, "predict", 3, fuse=False).predict([x])[0],
        )


# One image: output channels are shared by the threads where there are more weights than pixels,
# else rows; most taps come first; the next weights are fetched meanwhile, also at the end of them.
@pytest.mark.parametrize(
    ("kernel", "image"),
    [((1, 1, 300, 256), (7, 7)), ((3, 3, 99, 130), (7, 7)), ((1, 1, 66, 70), (28, 31))],
)
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_one_image_has_the_bits_of_many(kernel, image, threads):
    layer = Layer(kernel, image, pad=kernel[0] // 2, activation="relu")
    x = layer.inputs(8)[0]
    before = _core.num_threads()
    try:
        _core.set_num_threads(1)
        expected = ops.conv2d(x, layer.w, layer.b, padding=kernel[0] // 2, activation="relu")
        _core.set_num_threads(threads)
        plan = layer.plan(1, winograd=False)
        for i in range(3):
            assert_exact(plan.predict([x[i : i + 1]])[0], expected[i : i + 1])
    finally:
        _core.set_num_threads(before)


@BOTH
def test_weights_are_prepared_again_when_they_change(winograd):
    layer = Layer((3, 3, 32, 32), (8, 8))
    plan, inputs = layer.plan(1, winograd=winograd), layer.inputs(1)
    first = plan.predict(inputs)[0]
    layer.set(2 * layer.w, 2 * layer.b)
    assert_exact(plan.predict(inputs)[0], 2 * first)


@BOTH
def test_batches_of_none(winograd):
    layer = Layer((3, 3, 32, 32), (8, 8))
    assert layer.plan(1, winograd=winograd).predict(layer.inputs(0))[0].shape == (0, 8, 8, 32)


@pytest.mark.parametrize("pool", [2, 3])
@pytest.mark.parametrize("image", [(18, 19), (13, 10)])
@BOTH
def test_pooling_in_the_kernel_changes_no_bit(winograd, image, pool):
    graph = _core.Graph()
    x, w = graph.input("x", (*image, 33)), graph.parameter("w", (3, 3, 33, 66))
    y = graph.node("conv2d", "conv", [x], [w, graph.parameter("b", (66,))])
    y = graph.node("activation", "act", [y], [], {"activation": "relu"})
    graph.output(graph.node("max_pool2d", "pool", [y], [], {"pool_size": [pool, pool]}))
    state = _core.State(graph)
    state.set(0, floats(3, 3, 33, 66))
    state.set(1, floats(66))
    fused = _core.Plan(graph, state, "predict", 3, winograd=winograd)
    way = "conv2d_winograd" if winograd and pool == 2 else "conv2d_packed"
    assert kernels(fused) == [way] * 2
    # A window of 3x3 does not fit into Winograd's tiles.
    plain = _core.Plan(graph, state, "predict", 3, fuse=False, winograd=winograd and pool == 2)
    assert kernels(plain) == [way] * 2 + ["activation", "max_pool2d"]
    images = floats(3, *image, 33)
    images[1, 5, 4] = np.nan
    assert_exact(fused.predict([images])[0], plain.predict([images])[0])


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((5, 5, 32, 32), {}),
        ((3, 3, 32, 32), {"stride": [2, 2]}),
        ((3, 3, 32, 32), {"dilation": [2, 2]}),
        ((3, 3, 16, 32), {"groups": 2}),
        ((3, 3, 31, 32), {}),
    ],
)
def test_what_winograd_declines_is_packed(kernel, attributes):
    graph = _core.Graph()
    channels = kernel[2] * attributes.get("groups", 1)
    x, w = graph.input("x", (24, 24, channels)), graph.parameter("w", kernel)
    graph.output(graph.node("conv2d", "conv", [x], [w], attributes))
    state = _core.State(graph)
    state.set(0, floats(*kernel))
    plan = _core.Plan(graph, state, "predict", 2)
    assert kernels(plan) == ["conv2d_packed"] * 2
    images = floats(2, 24, 24, channels)
    options = {"stride": 1, "dilation": 1, "groups": 1} | attributes
    assert_exact(plan.predict([images])[0], ops.conv2d(images, floats(*kernel), **options))


@pytest.fixture(params=_core.supported_isas())
def bfloat16(request):
    """Functional ops in bfloat16, on emulated products."""
    before = _core.isa()
    _core.set_bfloat16("emulated")
    _core.set_isa(request.param)
    _core.set_op_precision("bfloat16")
    yield
    _core.set_op_precision("float32")
    _core.set_isa(before)
    _core.set_bfloat16("measured")


# The last two stay in float32, where pairs do not pay.
@pytest.mark.parametrize("channels", [(31, 17), (32, 66), (99, 33), (8, 5), (3, 19), (5, 31)])
def test_packed_in_bfloat16_has_the_bits_of_the_op(bfloat16, channels):
    layer = Layer((3, 3, *channels), (9, 10), residual=True, activation="relu")
    x, residual = layer.inputs(3)
    plan = layer.plan(3, precision="bfloat16")
    assert kernels(plan) == ["conv2d_packed"] * 2
    sums = ops.conv2d(x, layer.w, layer.b, padding=1)
    assert_exact(plan.predict([x, residual])[0], np.maximum(sums + residual, 0))
    assert_exact(plan.predict([x[:1], residual[:1]])[0], np.maximum(sums + residual, 0)[:1])


@pytest.mark.parametrize("groups", [1, 2])
def test_packed_in_bfloat16_with_pooling_and_groups(bfloat16, groups):
    graph = _core.Graph()
    x, w = graph.input("x", (13, 10, 32)), graph.parameter("w", (3, 3, 32 // groups, 66))
    y = graph.node("conv2d", "conv", [x], [w], {"groups": groups})
    y = graph.node("activation", "act", [y], [], {"activation": "relu"})
    graph.output(graph.node("max_pool2d", "pool", [y], [], {"pool_size": [2, 2]}))
    state, weights = _core.State(graph), floats(3, 3, 32 // groups, 66)
    state.set(0, weights)
    plan = _core.Plan(graph, state, "predict", 3, precision="bfloat16")
    assert kernels(plan)[:2] == ["conv2d_packed"] * 2
    images = floats(3, 13, 10, 32)
    images[1, 5, 4] = np.nan
    y = ops.conv2d(images, weights, groups=groups, activation="relu")
    assert_exact(plan.predict([images])[0], ops.max_pool2d(y, 2))


@pytest.mark.parametrize(("value", "kernel"), [("0", "conv2d_packed"), ("1", "conv2d_winograd")])
def test_the_environment_turns_winograd_off(monkeypatch, value, kernel):
    monkeypatch.setenv("CONVLET_WINOGRAD", value)
    model = Sequential([Input((8, 8, 32)), layers.Conv2D(32, 3, padding="same")])
    model.predict(floats(1, 8, 8, 32))
    assert kernels(model._engine().plan("predict", 1)) == [kernel] * 2
