"""SeparableConv2D against torch's two convolutions: forward, saving, training."""

import numpy as np
import pytest
import torch

import convlet
from convlet import Input, Sequential, layers
from reference import assert_like_torch, floats, integers, nchw, nhwc, torch_padding
from torch_training import assert_trains_alike


class Separable(torch.nn.Module):
    """The twin of a layer that is built."""

    def __init__(self, layer):
        super().__init__()
        depthwise, pointwise, bias = (torch.from_numpy(w) for w in layer.get_weights())
        r, s, c, m = depthwise.shape
        self.depthwise = torch.nn.Parameter(depthwise.reshape(r, s, 1, c * m).permute(3, 2, 0, 1))
        self.pointwise = torch.nn.Parameter(pointwise.permute(3, 2, 0, 1))
        self.bias = torch.nn.Parameter(bias)
        self.layer, self.channels = layer, c

    def forward(self, x):
        layer, size, conv2d = self.layer, x.shape[1:3], torch.nn.functional.conv2d
        depthwise, pointwise, bias = (
            parameter.to(x.dtype) for parameter in (self.depthwise, self.pointwise, self.bias)
        )
        pad = torch_padding(
            layer.padding, size, layer.kernel_size, layer.strides, layer.dilation_rate
        )
        (top, bottom), (left, right) = pad
        x = torch.nn.functional.pad(nchw(x), (left, right, top, bottom))
        y = conv2d(x, depthwise, None, layer.strides, 0, layer.dilation_rate, self.channels)
        return nhwc(conv2d(y, pointwise, bias))


@pytest.mark.parametrize("channels", [1, 3, 17])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2, "padding": "same"},
        {"dilation_rate": 2, "depth_multiplier": 3},
        {"kernel_size": (1, 2), "padding": "same"},
    ],
)
def test_forward(channels, options):
    options = {"kernel_size": 3, "bias_initializer": "random_normal", **options}
    layer = layers.SeparableConv2D(5, **options)
    x = floats(2, 9, 7, channels)
    y = layer(x)
    multiplier = options.get("depth_multiplier", 1)
    shapes = [tuple(weight.shape) for weight in layer.weights]
    kernel = (*layer.kernel_size, channels, multiplier)
    assert shapes == [kernel, (1, 1, channels * multiplier, 5), (5,)]
    assert [weight.name for weight in layer.weights] == [
        "depthwise_kernel",
        "pointwise_kernel",
        "bias",
    ]
    assert_like_torch(y, Separable(layer), [x])


def test_trains_as_in_torch():
    layer = layers.SeparableConv2D(8, 3, padding="same", depth_multiplier=2)
    dense = layers.Dense(4)
    model = Sequential([Input((7, 6, 3)), layer, layers.ReLU(), layers.Flatten(), dense])

    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.separable = Separable(layer)
            self.dense = torch.nn.Linear(7 * 6 * 8, 4)
            kernel, bias = (torch.from_numpy(w) for w in dense.get_weights())
            self.dense.weight.data.copy_(kernel.T)
            self.dense.bias.data.copy_(bias)

        def forward(self, x):
            return self.dense(self.separable(x).relu().flatten(1))

    y = integers(24, low=0, high=3).astype(np.int32)
    assert_trains_alike(model, Twin(), floats(24, 7, 6, 3), y)


def test_it_is_saved(tmp_path):
    layer = layers.SeparableConv2D(4, (3, 2), 2, "same", depth_multiplier=2, activation="relu")
    model = Sequential([Input((9, 8, 3)), layer, layers.GlobalAveragePooling2D()])
    model.save(tmp_path / "m.safetensors")
    x = floats(3, 9, 8, 3)
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    assert loaded.layers[0].get_config() == layer.get_config()


def test_errors():
    with pytest.raises(ValueError, match="SeparableConv2D 'separable_conv2d': depth_multiplier"):
        layers.SeparableConv2D(4, 3, depth_multiplier=0)
    with pytest.raises(ValueError, match="inputs: expected images"):
        layers.SeparableConv2D(4, 3)(floats(2, 5))
