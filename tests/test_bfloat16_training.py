"""Plans in bfloat16, on emulated products: a fused step computes what its parts do, and the loss of
training follows that in float32."""

import numpy as np
import pytest

import convlet
from convlet import Input, Sequential, _core, applications, layers, losses, optimizers
from nets import MSE, Net
from reference import assert_exact, floats


@pytest.fixture(autouse=True)
def emulated():
    _core.set_bfloat16("emulated")
    yield
    _core.set_bfloat16("measured")


def gradients(net, n, precision, fuse):
    """y and the gradients of a train step whose targets are zeros."""
    state = net.state()
    plan = _core.Plan(net.graph, state, "train", n, [MSE], fuse=fuse, precision=precision)
    x = floats(n, *net.graph.shape(net.inputs[0]), seed=1)
    plan.run([x], [np.zeros((n, *net.graph.shape(net.outputs[0])), np.float32)])
    fused = "conv2d_pool" in [step["kernel"] for step in plan.steps()]
    return fused, [plan.output(0), *(state.gradient(i) for i in range(len(net.parameters)))]


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("c,k,pool", [(16, 40, [2, 2]), (33, 19, [3, 2]), (70, 99, [1, 4])])
def test_convolution_and_pooling_as_one_step(n, c, k, pool):
    net = Net()
    x = net.conv2d(net.input(11, 37, c), c, size=1)
    x = net.node("activation", net.conv2d(x, k, size=3), activation="relu")
    net.output(net.node("max_pool2d", x, pool_size=pool))
    fused, ours = gradients(net, n, "bfloat16", fuse=True)
    assert fused
    _, parts = gradients(net, n, "bfloat16", fuse=False)
    _, exact = gradients(net, n, "float32", fuse=False)
    for one, other, value in zip(ours, parts, exact, strict=True):
        largest = np.abs(value).max()
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * largest)
        assert np.abs(one - value).max() > 1e-4 * largest


def test_the_same_bits_with_any_number_of_threads():
    net = Net()
    x = net.conv2d(net.input(12, 13, 20), 24, size=3)
    net.output(net.node("max_pool2d", x, pool_size=[2, 2]))
    before, results = _core.num_threads(), []
    for threads in (1, 2, 5):
        _core.set_num_threads(threads)
        results.append(gradients(net, 7, "bfloat16", fuse=True)[1])
    _core.set_num_threads(before)
    for other in results[1:]:
        for one, first in zip(other, results[0], strict=True):
            assert_exact(one, first)


def cifar_cnn():
    """M1 of bench/networks.py."""
    model = [Input((32, 32, 3))]
    for channels in (32, 64):
        model += [layers.Conv2D(channels, 3, activation="relu"), layers.MaxPooling2D()]
    model += [layers.Conv2D(64, 3, activation="relu"), layers.Flatten()]
    return Sequential([*model, layers.Dense(64, activation="relu"), layers.Dense(10)])


def resnet18():
    """M5 of bench/networks.py, on images of half the size."""
    return applications.resnet18_cifar((16, 16, 3), 10, classifier_activation=None)


def losses_of(make, optimizer, batch, steps, precision):
    """The losses of some steps on noisy images of ten kinds, half of them with any label: the loss
    stays of a size at which a share of it means something."""
    convlet.set_random_seed(0)
    model = make()
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, device="cpu", precision=precision)
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((10, *model.inputs[0].sample_shape))
    curve = []
    for _ in range(steps):
        y = rng.integers(0, 10, batch)
        x = (kinds[y] + 0.5 * rng.standard_normal((batch, *kinds.shape[1:]))).astype(np.float32)
        y = np.where(rng.random(batch) < 0.5, rng.integers(0, 10, batch), y)
        curve.append(np.ravel(model.train_on_batch(x, y))[0])
    return np.array(curve)


@pytest.mark.parametrize(
    "make,optimizer,batch,steps",
    [
        (cifar_cnn, lambda: optimizers.Adam(3e-4), 32, 60),
        (resnet18, lambda: optimizers.SGD(0.001, 0.9), 16, 20),
    ],
)
def test_the_loss_follows_that_of_float32(make, optimizer, batch, steps):
    exact = losses_of(make, optimizer(), batch, steps, "float32")
    ours = losses_of(make, optimizer(), batch, steps, "bfloat16")
    assert exact[-5:].mean() < 0.9 * exact[:5].mean()
    assert np.abs(ours - exact).max() > 1e-5
    np.testing.assert_allclose(ours.reshape(-1, 5).mean(1), exact.reshape(-1, 5).mean(1), rtol=0.02)
