"""Activations inside models: a plan's gradients, 50 training steps against torch, and files."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import convlet
from convlet import _core, layers
from nets import MSE, Net
from reference import assert_exact, floats, nchw
from torch_training import assert_trains_alike, copy_weights

ALL = {
    "relu6": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "exponential": torch.exp,
    "hard_sigmoid": F.hardsigmoid,
    "hard_swish": F.hardswish,
    layers.LeakyReLU: lambda x: F.leaky_relu(x, 0.3),
    layers.ELU: F.elu,
}


class Twin(torch.nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 6, 3)
        self.hidden = torch.nn.Linear(6 * 16, 17)
        self.head = torch.nn.Linear(17, 4)
        self.activation = activation

    def forward(self, x):
        x = self.activation(self.conv(nchw(x)))
        x = self.activation(self.hidden(x.permute(0, 2, 3, 1).flatten(1)))
        return self.head(x)


def make_model(activation):
    def conv_and_dense(make, *arguments):
        if isinstance(activation, str):
            return [make(*arguments, activation=activation)]
        return [make(*arguments), activation()]

    return convlet.Sequential(
        [
            convlet.Input((6, 6, 2)),
            *conv_and_dense(layers.Conv2D, 6, 3),
            layers.Flatten(),
            *conv_and_dense(layers.Dense, 17),
            layers.Dense(4),
        ]
    )


@pytest.mark.parametrize("activation", ALL, ids=lambda a: a if isinstance(a, str) else a.__name__)
def test_trains_like_torch(activation, tmp_path):
    convlet.set_random_seed(3)
    model, twin = make_model(activation), Twin(ALL[activation])
    copy_weights(model, twin)
    x = 0.5 * floats(24, 6, 6, 2)
    y = np.random.default_rng(0).integers(0, 4, 24)
    rate = 0.005 if activation == "exponential" else 0.05
    assert_trains_alike(
        model,
        twin,
        x,
        y,
        optimizer=convlet.optimizers.SGD(rate),
        torch_optimizer=lambda p: torch.optim.SGD(p, rate),
    )
    model.save(tmp_path / "m.safetensors")
    again = convlet.load_model(tmp_path / "m.safetensors")
    assert_exact(again.predict(x), model.predict(x))


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    "name,alpha", [("leaky_relu", 0.1), ("leaky_relu", 0.2), ("elu", 0.5), ("relu6", 1.5)]
)
def test_alpha_in_a_plan(name, alpha, fuse):
    """The same bits as the functional op; only the usual alpha is fused."""
    net = Net()
    x = net.dense(net.input(5), 19)
    net.output(net.node("activation", x, activation=name, alpha=alpha))
    state, (data,) = net.state(), net.data(7)
    kernel, bias = net.parameters
    z = data @ kernel + bias
    z = convlet.ops.dense(data, kernel, bias)
    y = _core.activation(name, z, alpha, None)
    plan = _core.Plan(net.graph, state, "train", 7, [MSE], fuse=fuse)
    target = floats(7, 19, seed=4)
    plan.run([data], [target])
    assert_exact(plan.output(0), y)
    _, dy = convlet.ops.mean_squared_error(y, target, return_grad=True)
    dz = _core.activation_backward(name, dy, y, alpha, None)
    assert_exact(state.gradient(0), convlet.ops.dense_backward(dz, data, kernel)[1])
    steps = [step["kernel"] for step in plan.steps()]
    assert ("activation" in steps) == (not fuse or alpha != 0.2)


def test_bad_alpha_names_the_node():
    for name, alpha, message in (
        ("leaky_relu", -1.0, "activation1: expected attribute 'alpha' to be a finite number"),
        ("relu", 0.5, "activation1: activation relu takes no attribute 'alpha'"),
    ):
        net = Net()
        x = net.dense(net.input(5), 3)
        with pytest.raises(ValueError, match=message):
            net.node("activation", x, activation=name, alpha=alpha)
