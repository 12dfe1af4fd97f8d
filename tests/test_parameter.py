"""The op `parameter`: a weight as a value, read in place by ops that broadcast."""

import numpy as np
import pytest
import torch

from convlet import _core, ops
from nets import MSE, Net
from reference import assert_accurate, assert_exact, floats


def train(net, x, parameters, batch=None):
    """(y, gradients, steps) of one step of the net's only output with a mean squared error."""
    for i, value in enumerate(parameters):
        net.parameters[i] = value
    state = net.state()
    plan = _core.Plan(net.graph, state, "train", batch or len(x), [MSE])
    target = np.zeros((len(x), *net.graph.shape(net.outputs[0])), np.float32)
    plan.run([x], [target])
    y = plan.output(0)
    _, dy = ops.mean_squared_error(y, target, return_grad=True)
    steps = [step["kernel"] for step in plan.steps()]
    return y, dy, [state.gradient(i) for i in range(len(parameters))], steps


@pytest.mark.parametrize(("n", "batch"), [(1, 1), (5, 5), (3, 8)])
@pytest.mark.parametrize("op", ["add", "multiply"])
@pytest.mark.parametrize("shape", [(4, 7), (7,), (1, 7), (4, 1), (1,)])
def test_in_place(op, shape, n, batch):
    x, p = floats(n, 4, 7), floats(*shape, seed=1)
    net = Net()
    value = net.node("parameter", parameters=[net.parameter(*shape)])
    net.output(net.node(op, net.input(4, 7), value))
    y, dy, (gradient,), steps = train(net, x, [p], batch)
    assert "strided_copy" not in steps
    expected, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        a, b = torch.from_numpy(x).to(dtype), torch.from_numpy(p).to(dtype).requires_grad_()
        z = a + b if op == "add" else a * b
        z.backward(torch.from_numpy(dy).to(dtype))
        expected.append(z.detach().numpy())
        gradients.append(b.grad.numpy())
    assert_accurate(y, *expected)
    assert_accurate(gradient, *gradients)


def test_repeated_for_ops_that_need_every_sample():
    """A class token beside patches, which are added to it too, then a position embedding."""
    x, token, position = floats(5, 6, 8), floats(1, 8, seed=1), floats(7, 8, seed=2)
    net = Net()
    image = net.input(6, 8)
    first = net.node("parameter", parameters=[net.parameter(1, 8)])
    patches = net.node("add", image, first)
    tokens = net.node("concatenate", first, patches, axis=0)
    where = net.node("parameter", parameters=[net.parameter(7, 8)])
    net.output(net.node("add", tokens, where))
    y, dy, gradients, steps = train(net, x, [token, position])
    assert steps.count("strided_copy") == 1
    wide = np.broadcast_to(token, (5, 1, 8))
    assert_exact(y, np.concatenate([wide, x + token], 1) + position)
    both = dy.astype(np.float64).sum(0)
    np.testing.assert_allclose(gradients[0], both.sum(0, keepdims=True), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients[1], both, rtol=1e-4, atol=1e-5)


def test_as_an_output_and_frozen():
    net = Net()
    x = net.dense(net.input(3), 4)
    frozen = net.node("parameter", parameters=[net.parameter(4, trainable=False)])
    net.output(net.node("multiply", x, frozen))
    net.output(frozen)
    state = net.state()
    plan = _core.Plan(net.graph, state, "predict", 2)
    product, value = plan.predict([floats(2, 3)])
    assert_exact(value, np.stack([net.parameters[-1]] * 2))
    assert product.shape == (2, 4)
    train_plan = _core.Plan(net.graph, state, "train", 2, [MSE])
    train_plan.run([floats(2, 3)], [np.zeros((2, 4), np.float32)])
    assert_exact(state.get(2), net.parameters[2])


def test_two_parameters_meet():
    net = Net()
    a = net.node("parameter", parameters=[net.parameter(4, 1)])
    b = net.node("parameter", parameters=[net.parameter(1, 3)])
    net.output(net.node("add", net.node("multiply", a, b), net.input(4, 3)))
    p, q = floats(4, 1), floats(1, 3, seed=1)
    y, dy, gradients, _ = train(net, floats(3, 4, 3), [p, q])
    total = dy.astype(np.float64).sum(0)
    assert_exact(y, p * q + floats(3, 4, 3))
    np.testing.assert_allclose(
        gradients[0], (total * q).sum(1, keepdims=True), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        gradients[1], (total * p).sum(0, keepdims=True), rtol=1e-4, atol=1e-6
    )


def test_needs_its_parameter():
    net = Net()
    with pytest.raises(ValueError, match="parameter0: parameter expected 1 parameters, got 0"):
        net.node("parameter")
