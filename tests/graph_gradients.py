"""A small graph as a plan, forward and backward, against torch."""

import numpy as np
import torch

from convlet import _core, ops
from nets import MSE, Net
from reference import assert_accurate, assert_exact, run_torch


def run_graph(build, inputs, fuse=True):
    """(y, dy, gradients): build(net, *values) is the output for arrays with a batch axis; dy is
    that of a mean squared error, and a gradient is summed over the batch: each value is its input
    plus a parameter that is zero."""
    net = Net()
    values = []
    for x in inputs:
        zeros = net.node("parameter", parameters=[net.parameter(*x.shape[1:], scale=0.0)])
        values.append(net.node("add", net.input(*x.shape[1:]), zeros))
    net.output(build(net, *values))
    n = len(inputs[0])
    state = net.state()
    plan = _core.Plan(net.graph, state, "train", max(n, 1), [MSE], fuse=fuse)
    sample = net.graph.shape(net.outputs[0])
    target = np.random.default_rng(n).integers(-2, 3, (n, *sample)).astype(np.float32)
    plan.run(list(inputs), [target])
    y = plan.output(0)
    _, dy = ops.mean_squared_error(y, target, return_grad=True)
    return y, dy, [state.gradient(i) for i in range(len(inputs))]


def assert_graph_like_torch(build, function, inputs, *, exact=False, atol=1e-6):
    """The plan of build against function(*inputs) in torch: the value and all gradients."""
    y, dy, gradients = run_graph(build, inputs)
    y32, g32 = run_torch(function, inputs, dy)
    y64, g64 = run_torch(function, inputs, dy, torch.float64)
    if exact:
        assert_exact(y, y32)
    else:
        assert_accurate(y, y32, y64, atol)
    for got, single, double in zip(gradients, g32, g64, strict=True):
        if single is None:
            single = double = np.zeros((1, *got.shape), np.float32)
        assert_accurate(got, single.sum(0), double.sum(0), atol)
