"""The kernels that move or judge rows, seen through plans.

Reading a batch of any dtype, zero padding, concatenation, scaling, the accuracy of predictions.
"""

import numpy as np
import pytest

from convlet import _core
from reference import AWKWARD, assert_exact, floats, integers

DTYPES = ("float32", "float64", "uint8", "int32", "int64")


def predict(shape, op, x, attributes, dtype=None):
    """y of a graph of one node with one input."""
    graph = _core.Graph()
    value = graph.input("x", shape)
    graph.output(graph.node(op, op, [value], [], attributes))
    plan = _core.Plan(graph, _core.State(graph), "predict", max(len(x), 1))
    return plan.predict([x])[0]


def train_once(op, inputs, attributes, target):
    """(y, the gradient of each input) for loss = mean((y - target)^2) / 2 over a batch of one.

    Each input is a product of ones and a parameter, whose gradient is the input's.
    """
    graph = _core.Graph()
    parameters, values, kernels = [], [], []
    for i, x in enumerate(inputs):
        one = graph.input(f"one{i}", (1,))
        kernel = graph.parameter(f"x{i}", (1, x.size))
        flat = graph.node("dense", f"dense{i}", [one], [kernel], {"activation": ""})
        values.append(graph.node("reshape", f"reshape{i}", [flat], [], {"shape": list(x.shape)}))
        parameters.append(np.ones((1, 1), np.float32))
        kernels.append((kernel, x))
    graph.output(graph.node(op, op, values, [], attributes))
    state = _core.State(graph)
    state.set_optimizer({"kind": "sgd"})
    for kernel, x in kernels:
        state.set(kernel, x.reshape(1, -1))
    losses = [{"kind": "mean_squared_error", "output": 0, "weight": target.size / 2}]
    plan = _core.Plan(graph, state, "train", 1, losses)
    plan.run(parameters, [target[None]], learning_rate=0.0)
    return plan.output(0)[0], [state.gradient(k).reshape(x.shape) for k, x in kernels]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", AWKWARD)
def test_a_batch_of_any_dtype(isa, dtype, count):
    data = integers(23, count, low=0, high=255).astype(dtype)
    if dtype == "float64":
        data += 1 / 3
    graph = _core.Graph()
    graph.output(graph.node("scale", "scale", [graph.input("x", (count,))], [], {"factor": 1.0}))
    plan = _core.Plan(graph, _core.State(graph), "predict", 23)
    assert_exact(plan.predict([data])[0], data.astype(np.float32))
    rows = np.array([22, 0, 7, 7, 3], np.int64)
    assert_exact(plan.predict([data], rows)[0], data[rows].astype(np.float32))


def test_large_integers_are_rounded_once():
    data = np.array([[2**24 + 1, 2**24 + 3, -(2**62) - 1, 2**63 - 1]], np.int64)
    assert_exact(predict((4,), "scale", data, {"factor": 1.0}), data.astype(np.float32))


@pytest.mark.parametrize("channels", [1, 3, 17])
@pytest.mark.parametrize("pad", [(0, 0, 0, 0), (1, 2, 3, 0), (0, 0, 2, 2), (5, 0, 0, 1)])
def test_zero_padding(pad, channels):
    top, bottom, left, right = pad
    sides = ((0, 0), (top, bottom), (left, right), (0, 0))
    x = integers(3, 4, 5, channels)
    got = predict((4, 5, channels), "pad2d", x, {"pad": list(pad)})
    assert_exact(got, np.pad(x, sides))

    target = integers(4 + top + bottom, 5 + left + right, channels, seed=1)
    y, (dx,) = train_once("pad2d", [x[0]], {"pad": list(pad)}, target)
    assert_exact(y, np.pad(x[0], sides[1:]))
    cropped = (y - target)[top : top + 4, left : left + 5]
    np.testing.assert_allclose(dx, cropped, rtol=1e-6)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_concatenation(axis):
    sizes = (1, 19, 4)
    shape = [3, 5, 2]
    inputs = []
    for i, size in enumerate(sizes):
        shape[axis] = size
        inputs.append(integers(*shape, seed=i))
    expected = np.concatenate(inputs, axis)
    target = integers(*expected.shape, seed=9)
    y, gradients = train_once("concatenate", inputs, {"axis": axis}, target)
    assert_exact(y, expected)
    parts = np.split(expected - target, np.cumsum(sizes)[:-1], axis)
    for got, part in zip(gradients, parts, strict=True):
        np.testing.assert_allclose(got, part, rtol=1e-6)


@pytest.mark.parametrize("n", AWKWARD)
def test_scaling(isa, n):
    x = integers(4, n, high=255, low=0)
    got = predict((n,), "scale", x.astype(np.uint8), {"factor": 0.5, "offset": -1.0})
    assert_exact(got, x * np.float32(0.5) - 1)
    target = integers(n, seed=1)
    y, (dx,) = train_once("scale", [x[0]], {"factor": 0.5, "offset": -1.0}, target)
    np.testing.assert_allclose(dx, (y - target) * np.float32(0.5), rtol=1e-6)


def accuracy(kind, prediction, target):
    """The metric of a plan whose output is its input."""
    graph = _core.Graph()
    value = graph.input("x", prediction.shape[1:])
    graph.output(graph.node("scale", "same", [value], [], {"factor": 1.0}))
    loss = {"kind": "mean_squared_error", "output": 0}
    if kind == "sparse":
        loss = {"kind": "softmax_cross_entropy", "integer_labels": True, "from_logits": True}
    plan = _core.Plan(
        graph,
        _core.State(graph),
        "test",
        len(prediction),
        [loss],
        [{"kind": kind, "output": 0}],
    )
    return plan.run([prediction], [target])[-1]


@pytest.mark.parametrize("classes", [*AWKWARD, 5001])
def test_sparse_and_categorical_accuracy(classes):
    rng = np.random.default_rng(classes)
    prediction = rng.integers(0, 4, (50, classes)).astype(np.float32)  # with ties
    labels = rng.integers(0, classes, 50)
    labels[:20] = prediction[:20].argmax(1)
    expected = np.mean(prediction.argmax(1) == labels)
    assert accuracy("sparse", prediction, labels) == pytest.approx(expected, rel=1e-6)
    one_hot = np.eye(classes, dtype=np.float32)[labels]
    assert accuracy("categorical", prediction, one_hot) == pytest.approx(expected, rel=1e-6)


def test_nan_is_never_right():
    prediction = np.array([[np.nan, 1], [1, np.nan], [0, 1], [np.nan, np.nan]], np.float32)
    assert accuracy("sparse", prediction, np.array([0, 0, 1, 0])) == 0.25
    one_hot = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    assert accuracy("categorical", prediction, one_hot) == 0.25
    assert accuracy("binary", prediction, one_hot) == 3 / 8


def test_binary_accuracy():
    prediction = np.array([[0.5, 0.6], [0.4, 0.7], [0.9, 0.1]], np.float32)
    target = np.array([[0, 1], [1, 1], [1, 0.3]], np.float32)
    assert accuracy("binary", prediction, target) == pytest.approx(4 / 6, rel=1e-6)
    assert accuracy("binary", floats(7, 3), np.full((7, 3), 0.5, np.float32)) == 0
