"""Fifty steps of a plain convolutional network as in torch, and that a wrong step is noticed."""

import pytest
import torch

from convlet import Input, Sequential, layers, optimizers
from reference import floats, integers, nchw
from torch_training import assert_trains_alike, copy_weights


class Twin(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, stride=2)
        self.dense = torch.nn.Linear(8 * 4 * 4, 5)

    def forward(self, x):
        return self.dense(self.conv(nchw(x)).relu().permute(0, 2, 3, 1).flatten(1))


def pair():
    model = Sequential(
        [
            Input((9, 9, 3)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    twin = Twin()
    copy_weights(model, twin)
    return model, twin


def batch():
    return floats(24, 9, 9, 3), integers(24, low=0, high=4).astype("int32")


def test_a_convolutional_network():
    assert_trains_alike(*pair(), *batch())


def test_the_comparison_notices_another_learning_rate():
    with pytest.raises(AssertionError, match="step"):
        assert_trains_alike(*pair(), *batch(), optimizer=optimizers.SGD(0.0501, momentum=0.9))
