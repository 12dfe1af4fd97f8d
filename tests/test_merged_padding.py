"""Zeros around an image become padding of the convolution or max pooling that reads them."""

import numpy as np
import pytest

from convlet import _core
from nets import MSE, Net
from reference import floats


def stem(pad=(1, 0, 2, 1), own="valid", relu=True, **pooling):
    """Padding before a convolution with a stride, and before a max pooling."""
    net = Net()
    x = net.node("pad2d", net.input(9, 10, 3), pad=list(pad))
    x = net.conv2d(x, 8, stride=[2, 1], padding=own)
    if relu:
        x = net.node("activation", x, activation="relu")
    x = net.node("pad2d", x, pad=[1, 1, 1, 1])
    x = net.node("max_pool2d", x, **({"pool_size": [3, 3], "stride": [2, 2]} | pooling))
    net.output(net.dense(net.flatten(x), 3))
    return net


def kernels(net, fuse=True):
    steps = _core.Plan(net.graph, net.state(), "train", 4, [MSE], fuse=fuse).steps()
    return [step["kernel"] for step in steps]


@pytest.mark.parametrize(
    "net",
    [
        stem(),
        stem(own="same"),
        stem(pad=(0, 3, 0, 0)),
        stem(pool_size=[2, 2], stride=[1, 2]),
        stem(pad=(5, 0, 0, 4), own="same", pool_size=[3, 3], stride=[3, 3]),
    ],
)
def test_training_is_the_same_but_for_rounding(net):
    assert "pad2d" not in kernels(net)
    assert kernels(net, fuse=False).count("pad2d") == 2
    results = []
    for fuse in (True, False):
        state = net.state({"kind": "sgd"})
        plan = _core.Plan(net.graph, state, "train", 4, [MSE], fuse=fuse)
        run = [plan.run(net.data(4), [floats(4, 3)], learning_rate=0.01), plan.output(0)]
        results.append(run + [state.gradient(i) for i in range(len(net.parameters))])
    for merged, apart in zip(*results, strict=True):
        np.testing.assert_allclose(merged, apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "net",
    [
        stem(relu=False),  # below zero, a zero wins
        stem(pool_size=[1, 2], stride=[1, 1]),  # a window could lie in the padding
        stem(ceil_mode=True),
        stem(dilation=[2, 2]),
    ],
)
def test_poolings_that_see_the_zeros_keep_them(net):
    assert kernels(net).count("pad2d") == 1


def test_zeros_that_others_read_stay():
    net = Net()
    x = net.node("pad2d", net.input(5, 5, 2), pad=[1, 1, 1, 1])
    net.output(net.conv2d(x, 4))
    net.output(net.flatten(x))
    outputs = []
    for fuse in (True, False):
        plan = _core.Plan(net.graph, net.state(), "predict", 2, fuse=fuse)
        assert [step["kernel"] for step in plan.steps()].count("pad2d") == 1
        outputs.append(plan.predict(net.data(2)))
    for merged, apart in zip(*outputs, strict=True):
        np.testing.assert_allclose(merged, apart, rtol=1e-5, atol=1e-5)
