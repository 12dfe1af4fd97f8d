"""layers.LayerScale: a factor per channel, and its training, against torch."""

import numpy as np
import torch

from convlet import Input, Sequential, layers
from reference import floats
from torch_training import assert_trains_alike


def test_formula():
    x = floats(5, 3, 4, 6)
    layer = layers.LayerScale(0.25)
    np.testing.assert_array_equal(layer(x), 0.25 * x)
    gamma = floats(6)
    layer.set_weights([gamma])
    np.testing.assert_allclose(layer(x), gamma * x, rtol=1e-6)
    again = layers.LayerScale.from_config(layer.get_config())
    np.testing.assert_array_equal(again(x), 0.25 * x)


class Twin(torch.nn.Module):
    def __init__(self, gamma, kernel, bias):
        super().__init__()
        self.gamma = torch.nn.Parameter(torch.from_numpy(gamma))
        self.kernel = torch.nn.Parameter(torch.from_numpy(kernel))
        self.bias = torch.nn.Parameter(torch.from_numpy(bias))

    def forward(self, x):
        return (x * self.gamma) @ self.kernel + self.bias


def test_trains_like_torch():
    model = Sequential([Input((7,)), layers.LayerScale(0.5), layers.Dense(3)])
    x = floats(24, 7)
    y = (x[:, 0] > 0) + (x[:, 1] > 0)
    assert_trains_alike(model, Twin(*model.get_weights()), x, y.astype(np.int64))
