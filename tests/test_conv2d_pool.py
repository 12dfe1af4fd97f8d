"""conv2d with its activation and the max pooling after it as one step of a plan: against torch, and
the same as the steps one by one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import convlet
from convlet import _core, layers
from nets import MSE, Net
from reference import (
    assert_exact,
    assert_like_torch,
    floats,
    integers,
    nchw,
    nhwc,
    torch_conv2d,
)
from test_products import supported

CASES = {
    # N, H, W, C, K, window of the convolution, and of the pooling
    "odd": (2, 9, 8, 3, 5, 3, 2, {}),
    "cut": (3, 7, 7, 17, 33, 2, 3, {}),
    "same": (2, 10, 11, 4, 19, 3, 2, {"padding": "same"}),
    "strided": (2, 13, 12, 5, 8, 3, 2, {"stride": [2, 1], "pad": [1, 0, 2, 1]}),
    "dilated": (1, 11, 13, 2, 31, 3, (2, 1), {"dilation": [2, 3]}),
    "wide": (1, 6, 31, 1, 66, 3, (1, 4), {}),
    "channels": (2, 6, 6, 66, 99, 3, 2, {}),
    "rows": (1, 70, 66, 3, 40, 3, 2, {}),
    "one": (1, 2, 2, 1, 1, 1, 2, {}),
    "many": (19, 5, 5, 8, 16, 2, 2, {}),
    "quads": (2, 7, 18, 20, 68, 3, (1, 4), {}),
    "tiles": (3, 15, 13, 4, 132, 3, 2, {}),
    "first": (2, 15, 13, 3, 32, 3, 2, {}),
}


def network(n, h, w, c, k, size, pool, options, relu=True, bias=True):
    """A convolution of 1x1, whose gradients show dx, and then the one in question."""
    net = Net()
    x = net.conv2d(net.input(h, w, c), c, size=1, bias=False)
    x = net.conv2d(x, k, size=size, bias=bias, **options)
    if relu:
        x = net.node("activation", x, activation="relu")
    pool = [pool, pool] if isinstance(pool, int) else list(pool)
    net.output(net.node("max_pool2d", x, pool_size=pool))
    return net


def torch_network(pool, options, relu):
    def function(x, a, w, bias=None):
        x = torch_conv2d(x, a)
        padding = options.get("padding", "valid")
        if "pad" in options:
            top, bottom, left, right = options["pad"]
            padding = ((top, bottom), (left, right))
        keep = {key: tuple(options[key]) for key in ("stride", "dilation") if key in options}
        x = torch_conv2d(x, w, bias, padding=padding, **keep)
        x = torch.relu(x) if relu else x
        return nhwc(F.max_pool2d(nchw(x), pool))

    return function


def kernels(net, mode="train", fuse=True):
    losses = [] if mode == "predict" else [MSE]
    steps = _core.Plan(net.graph, net.state(), mode, 2, losses, fuse=fuse).steps()
    return [step["kernel"] for step in steps]


def run(net, x, dy, fuse=True, batch=None, **options):
    """y and the gradients of all parameters in a train step where the gradient of y is dy, nearly:
    what it really is comes third."""
    state = net.state()
    options["fuse"] = fuse
    plan = _core.Plan(net.graph, state, "train", batch or max(1, len(x)), [MSE], **options)
    y = _core.Plan(net.graph, net.state(), "test", max(1, len(x)), [MSE], **options)
    y.run([x], [np.zeros_like(dy)])
    target = y.output(0) - dy / 2
    weights = np.full(len(x), len(x) * dy[0].size, np.float32)  # they undo the means
    plan.run([x], [target], [weights])
    output = plan.output(0)
    assert_exact(output, y.output(0))
    gradients = [state.gradient(i) for i in range(len(net.parameters))]
    return output, gradients, 2 * (output - target)


def data_of(net, n, make):
    x = make(n, *net.graph.shape(net.inputs[0]), seed=1)
    return x, 2 * make(n, *net.graph.shape(net.outputs[0]), seed=2)


def check(case, relu=True, bias=True, exact=False):
    net = network(*case, relu=relu, bias=bias)
    make = integers if exact else floats
    if exact:
        net.parameters = [
            integers(*p.shape, seed=i, low=-2, high=2) for i, p in enumerate(net.parameters)
        ]
    x, dy = data_of(net, case[0], make)
    y, gradients, dy = run(net, x, dy)
    assert_like_torch(
        y,
        torch_network(case[6], case[7], relu),
        (x, *net.parameters),
        dy=dy,
        gradients=dict(enumerate(gradients, start=1)),
        exact=exact,
        atol=1e-4,  # of sums up to 100
    )


@pytest.mark.parametrize("name", CASES)
def test_against_torch(isa, name):
    case = CASES[name]
    assert "conv2d_pool" in kernels(network(*case))
    check(case)
    check(case, exact=True)


@pytest.mark.parametrize("name", ["odd", "same"])
def test_without_relu_or_bias(isa, name):
    check(CASES[name], relu=False, exact=True)
    check(CASES[name], bias=False, exact=True)
    check(CASES[name], relu=False, bias=False)


@st.composite
def cases(draw):
    pool = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    h = draw(st.integers(pool[0] + 3, 14))
    w = draw(st.integers(pool[1] + 3, 14))
    size = draw(st.integers(1, 3))
    options = {"stride": [draw(st.integers(1, 2)), 1]} if size <= h - pool[0] * 2 else {}
    channels = draw(st.tuples(st.integers(1, 20), st.integers(1, 40)))
    return draw(st.integers(1, 5)), h, w, *channels, size, pool, options


@given(cases(), st.booleans())
def test_shapes(case, relu):
    check(case, relu=relu, exact=True)


@pytest.mark.parametrize("name", CASES)
def test_fused_is_unfused(name):
    """The outputs, bit for bit, and integer gradients."""
    net = network(*CASES[name])
    net.parameters = [integers(*p.shape, seed=i) for i, p in enumerate(net.parameters)]
    x, dy = data_of(net, CASES[name][0], integers)
    for fused, unfused in zip(run(net, x, dy), run(net, x, dy, fuse=False), strict=True):
        for a, b in zip(fused, unfused, strict=True):
            assert_exact(a, b)
    net = network(*CASES[name])
    x, _ = data_of(net, 3, floats)
    outputs = [
        _core.Plan(net.graph, net.state(), "predict", 3, fuse=fuse).predict([x])[0]
        for fuse in (True, False)
    ]
    assert_exact(*outputs)


@pytest.mark.parametrize("precision", list(supported()))
@pytest.mark.parametrize("name", ["rows", "quads", "tiles", "first"])
def test_fused_is_unfused_in_every_precision(name, precision):
    """Both round the same factors, and sums of integers are exact."""
    net = network(*CASES[name])
    net.parameters = [integers(*p.shape, seed=i) for i, p in enumerate(net.parameters)]
    x, dy = data_of(net, CASES[name][0], integers)
    fused, unfused = (run(net, x, dy, fuse=fuse, precision=precision)[:2] for fuse in (True, False))
    assert_exact(fused[0], unfused[0])
    for a, b in zip(fused[1], unfused[1], strict=True):
        assert_exact(a, b)


@pytest.mark.parametrize("relu", [True, False])
def test_not_finite(isa, relu):
    """NaN is the largest, the first one takes the gradient; infinities are numbers."""
    net = network(1, 4, 34, 1, 1, 1, 2, {}, relu=relu, bias=False)
    net.parameters = [np.ones_like(p) for p in net.parameters]
    x = integers(1, 4, 34, 1)
    x[0, 0, 1] = x[0, 1, 2] = x[0, 1, 3] = x[0, 2, 0] = x[0, 3, 1] = np.nan
    x[0, 0, 6] = x[0, 2, 8] = np.inf
    x[0, 1, 6] = x[0, 2, 20:] = -np.inf
    x[0, 3, 21] = np.inf
    plans = [
        _core.Plan(net.graph, net.state(), "predict", 1, fuse=fuse).predict([x])[0]
        for fuse in (True, False)
    ]
    assert_exact(*plans)


def test_gradient_of_a_maximum_that_occurs_twice():
    """The first pixel of a window takes it; none where relu is closed."""
    net = network(1, 2, 8, 1, 1, 1, 2, {}, bias=False)
    net.parameters = [np.ones_like(p) for p in net.parameters]
    x = np.array([[3, 3, 0, 0, -1, -2, 1, 2], [3, 1, 0, 0, -1, -5, 2, 2]], np.float32)
    y, (da, _), _ = run(net, x.reshape(1, 2, 8, 1), np.full((1, 1, 4, 1), 2.0, np.float32))
    assert_exact(y.ravel(), np.float32([3, 0, 0, 2]))
    # dy is 2 at the 3 and at the first 2: da = sum of dz * x.
    assert_exact(da.ravel(), np.float32([2 * 3 + 2 * 2]))


def test_same_bits_for_any_number_of_threads():
    net = network(5, 30, 31, 3, 40, 3, 2, {"padding": "same"})
    x, dy = data_of(net, 5, floats)
    before, results = _core.num_threads(), []
    try:
        for count in (1, 2, 5):
            _core.set_num_threads(count)
            y, gradients, _ = run(net, x, dy)
            results.append([y, *gradients])
    finally:
        _core.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_exact(a, b)


def test_part_of_a_batch():
    net = network(*CASES["odd"])
    x, dy = data_of(net, 2, floats)
    for whole, part in zip(run(net, x, dy)[1], run(net, x, dy, batch=7)[1], strict=True):
        assert_exact(whole, part)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pool_size": [2, 2], "stride": [1, 1]},
        {"pool_size": [3, 3], "stride": [2, 2]},
        {"pool_size": [2, 2], "padding": "same"},
        {"pool_size": [2, 2], "pad": [1, 0, 0, 0]},
        {"pool_size": [2, 2], "ceil_mode": True},
        {"pool_size": [2, 2], "stride": [3, 3]},
        {"pool_size": [2, 2], "dilation": [2, 2]},
        {"pool_size": [5, 5]},
    ],
)
def test_other_windows_are_left_apart(pooling):
    net = Net()
    x = net.conv2d(net.input(9, 9, 2), 4)
    net.output(net.node("max_pool2d", x, **pooling))
    fused = kernels(net)
    assert "max_pool2d" in fused or pooling.get("padding") == "same" or "ceil_mode" in pooling
    assert ("conv2d_pool" in fused) == ("max_pool2d" not in fused)


def test_what_others_read_is_left_apart():
    def kernels_of(build):
        net = Net()
        build(net, net.conv2d(net.input(9, 9, 2), 4))
        return kernels(net)

    def read_twice(net, x):
        net.output(net.flatten(x))
        net.output(net.node("max_pool2d", x, pool_size=[2, 2]))

    def gelu(net, x):
        x = net.node("activation", x, activation="gelu")
        net.output(net.node("max_pool2d", x, pool_size=[2, 2]))

    def grouped(net, x):
        x = net.conv2d(x, 4, groups=2)
        net.output(net.node("max_pool2d", x, pool_size=[2, 2]))

    for build in (read_twice, gelu, grouped):
        assert "conv2d_pool" not in kernels_of(build)


def test_frozen_weights_keep_no_choice():
    """Nothing of a net whose convolution is not trained is kept for a backward."""
    net = Net()
    x = net.input(9, 9, 2)
    w = net.parameter(3, 3, 2, 4, trainable=False)
    x = net.node("max_pool2d", net.node("conv2d", x, parameters=[w]), pool_size=[2, 2])
    net.output(net.dense(net.flatten(x), 3))
    names = kernels(net)
    assert "conv2d_pool" in names
    assert "conv2d_pool_backward_weight" not in names


def test_in_a_model():
    """Batch normalization before the pooling is folded in predictions; the layers train."""
    inputs = convlet.Input((11, 11, 3))
    x = layers.Conv2D(8, 3)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 3, activation="relu")(layers.MaxPooling2D()(x))
    x = layers.Dense(3)(layers.Flatten()(layers.MaxPooling2D()(x)))
    model = convlet.Model(inputs, x)
    model.compile("sgd", "mse")
    x, y = floats(20, 11, 11, 3), floats(20, 3)
    first = model.train_on_batch(x, y)
    for _ in range(5):
        last = model.train_on_batch(x, y)
    assert last < first
    counts = {
        mode: [s["kernel"] for s in model._engine().plan(mode, 20).steps()].count("max_pool2d")
        for mode in ("train", "predict")
    }
    assert counts == {"train": 1, "predict": 0}
