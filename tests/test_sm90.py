"""conv2d in bfloat16 by the instructions of sm_90a, which are off unless asked for: 64 channels or
more on both sides take them, where the copy engine's maps can describe the windows."""

import numpy as np
import pytest

from convlet import _core, ops
from nets import SPARSE, Net
from reference import assert_exact, floats, integers
from test_products import (
    assert_exact_results,
    assert_rounded_results,
    check_conv2d,
    conv2d_results,
)


@pytest.fixture(autouse=True)
def sm90(monkeypatch):
    monkeypatch.setenv("CONVLET_SM90", "1")
    _core.set_op_precision("bfloat16")
    yield
    _core.set_op_precision("float32")


# x, w, options. By what decides: tiles of 64, 128 and 256 columns; steps, rows and columns that end
# within a tile; channels that are no multiple of 8; an odd number of taps with 64 channels each;
# windows that begin outside the image or skip pixels, differently along h and w; phases of the
# gradient without a tap; sums of several parts; more tiles than blocks.
CONVOLUTIONS = [
    ((2, 5, 6, 64), (3, 3, 64, 72), {"padding": 1}),
    ((2, 7, 8, 66), (3, 3, 66, 130), {"padding": 1, "stride": 2}),
    ((1, 5, 6, 99), (2, 3, 99, 65), {"stride": (1, 3), "dilation": (2, 1), "padding": 3}),
    ((3, 9, 8, 64), (3, 3, 64, 64), {"padding": "same", "stride": 2}),
    ((2, 7, 5, 64), (1, 1, 64, 96), {"stride": (2, 3)}),
    ((7, 17, 19, 66), (2, 1, 66, 64), {}),
    ((2, 6, 31, 64), (1, 5, 64, 99), {"padding": (0, 7), "dilation": (1, 3)}),
    ((1, 9, 3, 80), (4, 2, 80, 64), {"stride": (4, 1), "padding": (2, 1)}),
]


@pytest.mark.parametrize("x,w,options", CONVOLUTIONS)
def test_convolutions_of_small_integers(x, w, options):
    check_conv2d(integers, assert_exact_results, x, w, options)


@pytest.mark.parametrize("x,w,options", CONVOLUTIONS[:3])
def test_convolutions_of_floats(x, w, options):
    check_conv2d(floats, assert_rounded_results("bfloat16"), x, w, options)


def test_tiles_of_256_columns():
    """Taken where there are many of them."""
    x, w = integers(3, 32, 32, 64), integers(1, 1, 64, 1024, seed=1)
    assert_exact(ops.conv2d(x, w), x @ w[0, 0])
    dy, w = integers(3, 64, 64, 64), integers(1, 1, 256, 64, seed=1)
    assert_exact(ops.conv2d_backward_input(dy, w, (3, 64, 64, 256)), dy @ w[0, 0].T)
    dy, x = integers(3, 32, 32, 1024), integers(3, 32, 32, 256, seed=1)
    dw = ops.conv2d_backward_weight(dy, x, (1, 1))
    assert_exact(dw[0, 0], x.reshape(-1, 256).T @ dy.reshape(-1, 1024))


@pytest.mark.parametrize(
    "x,w,options",
    [
        ((1, 20, 5, 64), (3, 3, 64, 64), {"stride": (9, 1)}),
        ((1, 3, 300, 64), (1, 2, 64, 64), {"dilation": (1, 256)}),
        ((1, 4, 4, 64), (1, 1, 64, 64), {"padding": (129, 0)}),
    ],
)
def test_windows_that_no_map_describes(x, w, options):
    check_conv2d(integers, assert_exact_results, x, w, options)


@pytest.mark.parametrize("activation", [None, "relu", "sigmoid"])
@pytest.mark.parametrize("x,w", [((2, 6, 7, 64), (1, 1, 64, 67)), ((1, 5, 5, 99), (3, 3, 99, 68))])
def test_bias_and_activation(x, w, activation):
    """The first sum is one part, the second several."""
    x, w, bias = integers(*x), integers(*w, seed=1) / 64, integers(w[-1], seed=2)
    plain = ops.conv2d(x, w, bias, padding=1)
    assert_exact(plain, ops.conv2d(x, w, padding=1) + bias)
    if activation is not None:
        whole = ops.conv2d(x, w, bias, padding=1, activation=activation)
        assert_exact(whole, getattr(ops, activation)(plain))


def test_the_same_bits_every_time():
    x, w = floats(2, 7, 8, 66), floats(3, 3, 66, 130, seed=1)
    first = conv2d_results(x, w, {"padding": 1}, floats)[1]
    again = conv2d_results(x, w, {"padding": 1}, floats)[1]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_values_that_are_not_finite():
    x, w = floats(1, 5, 5, 64), floats(3, 3, 64, 64, seed=1)
    x[0, 2, 2, 3] = np.nan
    y = ops.conv2d(x, w, padding=1, activation="relu")
    assert np.isnan(y[0, 1:4, 1:4]).all()
    assert np.isfinite(y[0, 0]).all()


def test_empty_batch():
    w = floats(3, 3, 64, 64)
    dy, (y, dx, dw) = conv2d_results(floats(0, 5, 5, 64), w, {"padding": 1}, floats)
    assert y.shape == dy.shape == (0, 5, 5, 64)
    assert dx.shape == (0, 5, 5, 64)
    assert_exact(dw, np.zeros_like(w))


def train():
    """The losses and parameters of three steps."""
    net = Net()
    y = net.conv2d(net.input(5, 6, 64), 64, padding="same", activation="relu")
    y = net.conv2d(y, 72, stride=[2, 2], activation="relu")
    net.output(net.dense(net.flatten(y), 3))
    state = net.state({"kind": "adam"})
    loss = SPARSE | {"from_logits": True}
    plan = _core.Plan(net.graph, state, "train", 3, [loss], precision="bfloat16")
    labels = np.arange(3)
    losses = [plan.run(net.data(3), [labels], learning_rate=0.001)[0] for _ in range(3)]
    return [np.array(losses), *(state.get(i) for i in range(len(net.parameters)))]


def test_steps_that_are_replayed(monkeypatch):
    """A map is part of a recorded launch. The other kernels add the same products in another
    order."""
    replayed = train()
    monkeypatch.setenv("CONVLET_CAPTURE", "0")
    for a, b in zip(replayed, train(), strict=True):
        assert_exact(a, b)
    monkeypatch.delenv("CONVLET_SM90")
    np.testing.assert_allclose(train()[0], replayed[0], rtol=1e-3)
