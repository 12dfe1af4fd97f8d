"""Layers: their arguments, shapes, weights, and what they compute, against torch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import convlet
from convlet import initializers, layers, regularizers
from reference import assert_accurate, floats, nchw, nhwc, run_torch, torch_conv2d, torch_padding


def apply(layer, *inputs):
    """The layer alone as a model, on arrays."""
    tensors = [convlet.Input(x.shape[1:]) for x in inputs]
    result = layer(tensors if len(tensors) > 1 else tensors[0])
    got = convlet.Model(tensors, result).predict(list(inputs))
    assert layer.output.shape == result.shape == (None, *got.shape[1:])
    return got


def assert_layer(layer, function, *inputs):
    """The layer's output against function(*inputs, *weights) in torch."""
    got = apply(layer, *inputs)
    arrays = [*inputs, *layer.get_weights()]
    y32, _ = run_torch(function, arrays)
    y64, _ = run_torch(function, arrays, dtype=torch.float64)
    # One rounding of a large value (activation "exponential") is more than that of a small one.
    assert_accurate(got, y32, y64, atol=1e-6 * max(1.0, np.abs(y64).max()))


ACTIVATIONS = {
    **{name: getattr(F, name) for name in ("relu", "sigmoid", "tanh", "gelu", "silu", "softplus")},
    **{name: getattr(F, name) for name in ("relu6", "elu", "selu")},
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "exponential": torch.exp,
    "hard_sigmoid": F.hardsigmoid,
    "hard_swish": F.hardswish,
    "softmax": lambda x: torch.softmax(x, -1),
}


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense(activation, use_bias):
    layer = layers.Dense(7, activation, use_bias=use_bias, bias_initializer="random_normal")

    def reference(x, w, b=None):
        y = x @ w if b is None else x @ w + b
        return y if activation is None else ACTIVATIONS[activation](y)

    assert_layer(layer, reference, floats(5, 19))
    assert [v.name for v in layer.weights] == (["kernel", "bias"] if use_bias else ["kernel"])


def test_dense_applies_to_the_last_axis():
    assert_layer(layers.Dense(3), lambda x, w, b: x @ w + b, floats(2, 4, 5, 6))


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        ({}, {}),
        ({"strides": 2, "padding": "same"}, {"stride": 2, "padding": "same"}),
        ({"padding": "SAME", "dilation_rate": (2, 1)}, {"padding": "same", "dilation": (2, 1)}),
        ({"groups": 2, "strides": (1, 3)}, {"groups": 2, "stride": (1, 3)}),
        ({"padding": 2, "strides": 2}, {"padding": 2, "stride": 2}),
        ({"padding": [[2, 0], [0, 3]]}, {"padding": ((2, 0), (0, 3))}),
    ],
)
def test_conv2d(options, reference):
    layer = layers.Conv2D(6, (3, 2), bias_initializer="random_normal", **options)
    assert_layer(layer, lambda x, w, b: torch_conv2d(x, w, b, **reference), floats(2, 9, 8, 4))
    assert layer.get_weights()[0].shape == (3, 2, 4 // layer.groups, 6)


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("padding", ["valid", "same", ((1, 0), (2, 1))])
def test_depthwise_conv2d_has_keras_layout(multiplier, padding):
    layer = layers.DepthwiseConv2D(3, 2, padding, multiplier, bias_initializer="random_normal")

    def reference(x, w, b):
        # One kernel (R,S,m) per input channel; the m outputs of a channel lie side by side.
        r, s, c, m = w.shape
        return torch_conv2d(x, w.reshape(r, s, 1, c * m), b, stride=2, padding=padding, groups=c)

    assert_layer(layer, reference, floats(2, 9, 8, 5))
    kernel = layer.get_weights()[0]
    assert kernel.shape == (3, 3, 5, multiplier)
    # The kernel of one channel touches the outputs of that channel only.
    kernel[:, :, 2] = 0
    layer.set_weights([kernel, np.zeros(5 * multiplier)])
    y = apply(layer, floats(1, 9, 8, 5)).reshape(-1, 5, multiplier)
    assert not y[:, 2].any()
    assert y[:, [0, 1, 3, 4]].any(axis=(0, 2)).all()


@pytest.mark.parametrize("padding", ["valid", "same", 1, ((0, 1), (1, 0))])
@pytest.mark.parametrize("strides", [None, 1, (2, 3)])
def test_max_pooling2d(padding, strides):
    layer = layers.MaxPooling2D((3, 2), strides, padding)
    stride = (3, 2) if strides is None else np.broadcast_to(strides, 2).tolist()

    def reference(x):
        (t, b), (left, r) = torch_padding(padding, x.shape[1:3], (3, 2), stride, (1, 1))
        x = F.pad(nchw(x), (left, r, t, b), value=-math.inf)
        return nhwc(F.max_pool2d(x, (3, 2), stride))

    assert_layer(layer, reference, floats(2, 10, 9, 3))


@pytest.mark.parametrize("padding", ["valid", "same", (1, 0), ((0, 1), (1, 0))])
def test_average_pooling2d_divides_by_the_cells_inside(padding):
    layer = layers.AveragePooling2D((3, 2), 2, padding)

    def reference(x):
        (t, b), (left, r) = torch_padding(padding, x.shape[1:3], (3, 2), (2, 2), (1, 1))
        total = F.avg_pool2d(F.pad(nchw(x), (left, r, t, b)), (3, 2), 2)
        cells = F.avg_pool2d(F.pad(torch.ones_like(nchw(x)), (left, r, t, b)), (3, 2), 2)
        return nhwc(total / cells)

    assert_layer(layer, reference, floats(2, 10, 9, 3))


@pytest.mark.parametrize("keepdims", [False, True])
def test_global_pooling2d(keepdims):
    x = floats(3, 5, 4, 6)
    average = layers.GlobalAveragePooling2D(keepdims=keepdims)
    largest = layers.GlobalMaxPooling2D(keepdims=keepdims)
    assert_layer(average, lambda x: x.mean((1, 2), keepdim=keepdims), x)
    assert_layer(largest, lambda x: x.amax((1, 2), keepdim=keepdims), x)


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (layers.Flatten(), lambda x: x.reshape(len(x), -1)),
        (layers.Reshape((10, -1)), lambda x: x.reshape(len(x), 10, -1)),
        (layers.Reshape((60,)), lambda x: x.reshape(len(x), 60)),
        (layers.Dropout(0.5), lambda x: x),
        (layers.Activation("tanh"), torch.tanh),
        (layers.Activation("swish"), F.silu),
        (layers.Activation("linear"), lambda x: x + 0),
        (layers.Activation("log_softmax"), lambda x: torch.log_softmax(x, -1)),
        (layers.Activation("hard_silu"), F.hardswish),
        (layers.Activation("exponential"), torch.exp),
        (layers.Activation("leaky_relu"), lambda x: F.leaky_relu(x, 0.2)),
        (layers.ReLU(), torch.relu),
        (layers.ReLU(6), F.relu6),
        (layers.ReLU(max_value=0.5), lambda x: torch.clamp(x, 0, 0.5)),
        (layers.ReLU(negative_slope=0.25), lambda x: F.leaky_relu(x, 0.25)),
        (layers.LeakyReLU(), lambda x: F.leaky_relu(x, 0.3)),
        (layers.LeakyReLU(0), torch.relu),
        (layers.ELU(), F.elu),
        (layers.ELU(2), lambda x: F.elu(x, 2)),
        (layers.Softmax(), lambda x: torch.softmax(x, -1)),
        (layers.Rescaling(1 / 127.5, offset=-1), lambda x: x * np.float32(1 / 127.5) - 1),
        (layers.SpatialDropout2D(0.5), lambda x: x),
        (layers.StochasticDepth(0.5), lambda x: x),
        (layers.Permute((2, 3, 1)), lambda x: x.permute(0, 2, 3, 1)),
        (layers.Cropping2D(), lambda x: x),
        (layers.Cropping2D(1), lambda x: x[:, 1:-1, 1:-1]),
        (layers.Cropping2D(((2, 0), (1, 2))), lambda x: x[:, 2:, 1:-2]),
        (layers.UpSampling2D(), lambda x: x.repeat_interleave(2, 1).repeat_interleave(2, 2)),
        (
            layers.UpSampling2D((2, 3), interpolation="bilinear"),
            lambda x: nhwc(F.interpolate(nchw(x), scale_factor=(2, 3), mode="bilinear")),
        ),
        (layers.ZeroPadding2D(), lambda x: F.pad(x, (0, 0, 1, 1, 1, 1))),
        (layers.ZeroPadding2D((2, 1)), lambda x: F.pad(x, (0, 0, 1, 1, 2, 2))),
        (layers.ZeroPadding2D(((1, 2), (0, 3))), lambda x: F.pad(x, (0, 0, 0, 3, 1, 2))),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_layers_without_weights(layer, function):
    assert_layer(layer, function, floats(2, 5, 4, 3))


def test_merging():
    a, b, c = floats(2, 4, 3), floats(2, 4, 3, seed=1), floats(2, 4, 3, seed=2)
    assert_layer(layers.Add(), lambda a, b, c: a + b + c, a, b, c)
    assert_layer(layers.Multiply(), lambda a, b: a * b, a, b)
    gate = floats(2, 1, 3, seed=3)
    assert_layer(layers.Multiply(), lambda a, b: a * b, a, gate)
    assert_layer(layers.Add(), lambda a, b: a + b[:, None], a, floats(2, 3, seed=4))
    assert_layer(layers.Subtract(), lambda a, b: a - b, a, b)
    assert_layer(layers.Average(), lambda a, b, c: (a + b + c) / 3, a, b, c)
    assert_layer(layers.Maximum(), lambda a, b, c: torch.maximum(torch.maximum(a, b), c), a, b, c)
    assert_layer(layers.Minimum(), lambda a, b: torch.minimum(a, b), a, gate)
    assert_layer(layers.Concatenate(), lambda a, b, c: torch.cat([a, b, c], -1), a, b, c)
    assert_layer(layers.Concatenate(1), lambda a, b: torch.cat([a, b], 1), a, floats(2, 7, 3))
    assert_layer(layers.Concatenate(-2), lambda a, b: torch.cat([a, b], 1), a, floats(2, 7, 3))
    x, y = convlet.Input((4,)), convlet.Input((4,))
    assert layers.add([x, y]).shape == layers.multiply([x, y]).shape == (None, 4)
    for join in (layers.subtract, layers.average, layers.maximum, layers.minimum):
        assert join([x, y]).shape == (None, 4)
    assert layers.concatenate([x, y], axis=-1).shape == (None, 8)


BAD_ARGUMENTS = [
    (lambda: layers.Conv2D(0, 3), r"Conv2D 'conv2d': filters: expected an integer >= 1, got 0"),
    (lambda: layers.Conv2D(8.0, 3), "filters: expected an integer"),
    (lambda: layers.Conv2D(True, 3), "filters: expected an integer"),
    (lambda: layers.Conv2D(8, (3, 0)), r"kernel_size: expected an integer .* got \(3, 0\)"),
    (lambda: layers.Conv2D(8, (3, 3, 3)), "kernel_size"),
    (lambda: layers.Conv2D(8, "33"), "kernel_size"),
    (lambda: layers.Conv2D(8, 3, strides=-1), "strides: expected"),
    (
        lambda: layers.Conv2D(8, 3, padding="full"),
        "padding: expected 'valid', 'same' or numbers, got 'full'",
    ),
    (lambda: layers.Conv2D(8, 3, data_format="channels_first"), "data_format.*channels_last"),
    (lambda: layers.Conv2D(8, 3, dilation_rate=0), "dilation_rate"),
    (lambda: layers.Conv2D(8, 3, groups=3), "groups: expected a divisor of filters = 8, got 3"),
    (
        lambda: layers.Conv2D(8, 3, activation="rleu"),
        "activation: expected None or one of .*'relu'",
    ),
    (lambda: layers.Conv2D(8, 3, use_bias=1), "use_bias: expected True or False, got 1"),
    (
        lambda: layers.Conv2D(8, 3, kernel_initializer="glorot"),
        "kernel_initializer: expected one of",
    ),
    (
        lambda: layers.Conv2D(8, 3, kernel_regularizer="l3"),
        "kernel_regularizer: expected None, 'l1'",
    ),
    (lambda: layers.Conv2D(8, 3, kernel_constraint="max_norm"), "kernel_constraint: expected None"),
    (lambda: layers.Conv2D(8, 3, activity_regularizer="l2"), "activity_regularizer: expected None"),
    (lambda: layers.Conv2D(8, 3, dtype="float16"), "dtype: expected 'float32', got 'float16'"),
    (lambda: layers.Conv2D(8, 3, name="a/b"), "name: expected a non-empty string without '/'"),
    (lambda: layers.Conv2D(8, 3, name=""), "name: expected"),
    (lambda: layers.Conv2D(8, 3, trainable="no"), "trainable: expected True or False"),
    (lambda: layers.DepthwiseConv2D(3, depth_multiplier=0), "depth_multiplier: expected"),
    (lambda: layers.Dense(2.5), "Dense 'dense': units: expected an integer >= 1, got 2.5"),
    (lambda: layers.Dense(2, input_shape=(None,)), "input_shape: expected fixed sizes"),
    (lambda: layers.MaxPooling2D(0), "pool_size: expected"),
    (lambda: layers.AveragePooling2D(2, padding=-1), "padding: expected an integer >= 0"),
    (lambda: layers.AveragePooling2D(2, padding=None), r"padding: expected an integer, \(h, w\)"),
    (lambda: layers.GlobalMaxPooling2D(keepdims=2), "keepdims: expected True or False"),
    (lambda: layers.Dropout(1.0), r"rate: expected a number in \[0, 1\), got 1.0"),
    (lambda: layers.Dropout(math.nan), "rate: expected a finite number"),
    (lambda: layers.Dropout(0.5, noise_shape=(1,)), "noise_shape: expected None"),
    (lambda: layers.ReLU(max_value=0), "max_value: expected a number > 0 or None, got 0"),
    (lambda: layers.ReLU(6, 0.1), "negative_slope: expected 0 where there is a max_value, got 0.1"),
    (lambda: layers.ReLU(negative_slope=-1), "negative_slope: expected a number >= 0, got -1"),
    (lambda: layers.ReLU(threshold=0.5), "threshold: expected 0, got 0.5"),
    (lambda: layers.LeakyReLU(-0.1), "LeakyReLU 'leaky_re_lu': negative_slope: expected a number"),
    (lambda: layers.LeakyReLU(None), "negative_slope: expected a number, got None"),
    (lambda: layers.ELU(math.inf), "ELU 'elu': alpha: expected a finite number, got inf"),
    (lambda: layers.SpatialDropout2D(-0.1), r"SpatialDropout2D .*rate: expected a number in \[0"),
    (lambda: layers.StochasticDepth(1), r"StochasticDepth .*rate: expected a number in \[0, 1\)"),
    (lambda: layers.Permute((0, 1)), "Permute 'permute': dims: expected each of 1, 2, ... once"),
    (lambda: layers.Permute(2), "dims: expected each of 1, 2"),
    (lambda: layers.Cropping2D((1, 2, 3)), "cropping: expected an integer"),
    (
        lambda: layers.UpSampling2D(0),
        "'up_sampling2d': size: expected an integer >= 1",
    ),
    (lambda: layers.UpSampling2D(interpolation="area"), "interpolation: expected 'nearest' or"),
    (lambda: layers.Softmax(axis=1), "axis: expected -1"),
    (lambda: layers.Reshape((-1, -1)), "target_shape: expected"),
    (lambda: layers.Reshape((0,)), "target_shape: expected"),
    (lambda: layers.Rescaling("1/255"), "scale: expected a number, got '1/255'"),
    (lambda: layers.ZeroPadding2D((1, 2, 3)), "padding: expected an integer"),
    (lambda: layers.ZeroPadding2D(-1), "padding: expected"),
    (lambda: layers.Concatenate(axis=0), "axis: expected an integer other than 0"),
    (lambda: convlet.Input(()), "shape: expected a tuple of 1 to 7 sizes"),
    (lambda: convlet.Input((None, None, 3)), "shape: expected fixed sizes"),
    (lambda: convlet.Input((28, -1)), "shape: expected positive sizes"),
    (lambda: convlet.Input("ab"), "shape: expected a tuple"),
]


@pytest.mark.parametrize(("make", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_arguments_are_named():
    with pytest.raises(TypeError, match="Conv2D 'conv2d': unexpected argument 'stride'"):
        layers.Conv2D(8, 3, stride=2)


BAD_INPUTS = [
    (lambda: layers.Conv2D(8, 3), (784,), r"Conv2D 'conv2d': inputs: expected images \(N,H,W,C\)"),
    (lambda: layers.Conv2D(8, 5), (4, 4, 1), "conv2d"),
    (lambda: layers.Conv2D(8, 3, groups=2), (9, 9, 3), "groups: expected a divisor of the 3 input"),
    (lambda: layers.DepthwiseConv2D(3), (9, 3), "DepthwiseConv2D 'depthwise_conv2d': inputs"),
    (lambda: layers.MaxPooling2D(5), (4, 4, 1), "max_pooling2d"),
    (lambda: layers.MaxPooling2D(), (4,), "max_pooling2d"),
    (lambda: layers.GlobalAveragePooling2D(), (4,), "global_average_pooling2d"),
    (lambda: layers.ZeroPadding2D(), (4,), "zero_padding2d"),
    (lambda: layers.SpatialDropout2D(0.1), (4, 2), "inputs: expected images"),
    (lambda: layers.Permute((2, 1)), (4, 2, 3), r"dims: expected 3 axes .*got \(2, 1\)"),
    (lambda: layers.Cropping2D(2), (4, 5, 1), "cropping: expected less than the image"),
    (lambda: layers.Cropping2D(2), (4,), "inputs: expected images"),
    (lambda: layers.UpSampling2D(), (4,), "up_sampling2d"),
    (lambda: layers.Reshape((7,)), (4, 2), "target_shape: expected a shape of 8 elements"),
    (lambda: layers.Reshape((3, -1)), (4, 2), "target_shape: expected a shape of 8 elements"),
]


@pytest.mark.parametrize(("make", "shape", "message"), BAD_INPUTS)
def test_inputs_that_do_not_fit_are_named_and_leave_the_layer_unbuilt(make, shape, message):
    layer = make()
    with pytest.raises(ValueError, match=message):
        layer(convlet.Input(shape))
    assert not layer.built
    assert layer.weights == []


def test_merging_refuses_what_does_not_fit():
    a, b = convlet.Input((4, 3)), convlet.Input((5, 3))
    with pytest.raises(ValueError, match="add"):
        layers.Add()([a, b])
    with pytest.raises(ValueError, match="Add 'add': inputs: expected a list of two or more"):
        layers.Add()([a])
    with pytest.raises(ValueError, match="Subtract 'subtract': inputs: expected a list of two"):
        layers.Subtract()([a, a, a])
    with pytest.raises(ValueError, match="concatenate"):
        layers.Concatenate(-1)([a, b])
    with pytest.raises(ValueError, match="axis: expected an axis of tensors with 3 axes, got 3"):
        layers.Concatenate(3)([a, b])
    with pytest.raises(ValueError, match="Dense 'dense': inputs: expected one tensor"):
        layers.Dense(1)([a, b])
    with pytest.raises(ValueError, match="symbolic tensors only or arrays only"):
        layers.Add()([a, np.zeros((1, 4, 3))])


def test_a_layer_fixes_its_input_channels():
    layer = layers.Conv2D(4, 3)
    layer(convlet.Input((8, 8, 3)))
    with pytest.raises(ValueError, match="conv2d"):
        layer(convlet.Input((8, 8, 4)))
    assert layer.get_weights()[0].shape == (3, 3, 3, 4)


def test_a_layer_computes_on_arrays():
    x = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(layers.Rescaling(0.5)(x), x * np.float32(0.5))
    dense = layers.Dense(2)
    y = dense(x)
    kernel, bias = dense.get_weights()
    np.testing.assert_allclose(y, x.astype(np.float32) @ kernel + bias, rtol=1e-5)
    dense.set_weights([kernel * 2, bias])
    np.testing.assert_allclose(dense(x), 2 * y, rtol=1e-5)
    np.testing.assert_array_equal(layers.Add()([x, x]), 2.0 * x)
    assert dense(x[:0]).shape == (0, 2)
    with pytest.raises(ValueError, match="arrays with a batch axis first"):
        dense(np.zeros(4))


def test_get_and_set_weights():
    layer = layers.Dense(3)
    assert layer.get_weights() == []
    layer(convlet.Input((2,)))
    kernel, bias = floats(2, 3), floats(3)
    layer.set_weights([kernel, bias])
    got = layer.get_weights()
    np.testing.assert_array_equal(got[0], kernel)
    np.testing.assert_array_equal(got[1], bias)
    got[0][:] = 7  # a copy
    np.testing.assert_array_equal(layer.get_weights()[0], kernel)
    with pytest.raises(ValueError, match="set_weights: expected 2 arrays, got 1"):
        layer.set_weights([kernel])
    with pytest.raises(ValueError, match=r"bias: expected shape \(3,\), got \(2, 3\)"):
        layer.set_weights([kernel * 2, kernel])
    np.testing.assert_array_equal(layer.get_weights()[0], kernel)
    assert layer.count_params() == 9


def test_config_round_trip():
    made = [
        layers.Conv2D(4, (3, 2), 2, "same", activation="relu", kernel_regularizer="l2", name="c"),
        layers.DepthwiseConv2D(
            3, padding=(1, 2), depth_multiplier=2, depthwise_initializer="he_normal"
        ),
        layers.Dense(5, kernel_initializer=initializers.RandomNormal(0, 0.2, seed=3)),
        layers.MaxPooling2D(3, 2, "same"),
        layers.AveragePooling2D(2, padding=((1, 0), (0, 1))),
        layers.GlobalAveragePooling2D(keepdims=True),
        layers.GlobalMaxPooling2D(),
        layers.MultiHeadAttention(2, 4, 3, dropout=0.1, output_shape=6),
        layers.PatchEmbedding((2, 3), 4, use_bias=False),
        layers.ClassToken("random_normal"),
        layers.FirstToken(),
        layers.LayerScale(0.1),
        layers.PositionEmbedding("sinusoidal"),
        layers.SimpleRNN(3, use_bias=False, recurrent_initializer="glorot_normal"),
        layers.LSTM(3, unit_forget_bias=False, return_sequences=True),
        layers.GRU(3, go_backwards=True, recurrent_regularizer="l2"),
        layers.Bidirectional(
            layers.LSTM(3), "ave", backward_layer=layers.LSTM(3, go_backwards=True)
        ),
        layers.Operation("scale", {"factor": 2.0}, label="multiply"),
        layers.Flatten(),
        layers.Reshape((2, -1)),
        layers.Dropout(0.3, seed=1),
        layers.Activation("gelu"),
        layers.ReLU(),
        layers.ReLU(max_value=6),
        layers.ReLU(negative_slope=0.1),
        layers.LeakyReLU(0.1),
        layers.ELU(0.5),
        layers.Softmax(),
        layers.SpatialDropout2D(0.25),
        layers.StochasticDepth(0.1),
        layers.Permute((2, 1)),
        layers.Cropping2D(((1, 2), (3, 4))),
        layers.UpSampling2D((2, 3), interpolation="bilinear"),
        layers.Subtract(),
        layers.Average(),
        layers.Maximum(),
        layers.Minimum(),
        layers.Add(),
        layers.Multiply(),
        layers.Concatenate(1),
        layers.ZeroPadding2D(((1, 2), (3, 4))),
        layers.Rescaling(2, offset=1),
        layers.SeparableConv2D(4, 3, depth_multiplier=2, pointwise_regularizer="l1"),
        layers.BatchNormalization(momentum=0.9, scale=False, beta_regularizer="l2"),
        layers.Normalization(mean=0.5, variance=2.0),
        layers.RandomBrightness(0.2),
        layers.RandomContrast(0.2),
        layers.RandomCrop(4, 3),
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.1),
        layers.RandomTranslation(0.1, 0.2),
        layers.RandomZoom(0.1),
        layers.LayerNormalization([2, 1], center=False),
        layers.GroupNormalization(4, epsilon=1e-5),
        layers.InstanceNormalization(3, scale=False),
        layers.InputLayer((4, 5)),
    ]
    assert {type(layer).__name__ for layer in made} == set(layers.REGISTRY)
    for layer in made:
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("name", "kind", "parameter"),
    [
        ("glorot_uniform", "uniform", math.sqrt(6 / (3 * 3 * (20 + 40)))),
        ("glorot_normal", "normal", math.sqrt(2 / (3 * 3 * (20 + 40)))),
        ("he_uniform", "uniform", math.sqrt(6 / (3 * 3 * 20))),
        ("he_normal", "normal", math.sqrt(2 / (3 * 3 * 20))),
        ("lecun_uniform", "uniform", math.sqrt(3 / (3 * 3 * 20))),
        ("lecun_normal", "normal", math.sqrt(1 / (3 * 3 * 20))),
        ("random_uniform", "uniform", 0.05),
        ("random_normal", "normal", 0.05),
    ],
)
def test_initializers_have_keras_scale(name, kind, parameter):
    values = initializers.get(name)((3, 3, 20, 40), seed=1)
    assert values.dtype == np.float32
    assert abs(values.mean()) < 0.05 * parameter
    if kind == "uniform":
        assert 0.99 * parameter < np.abs(values).max() <= parameter
        assert values.std() == pytest.approx(parameter / math.sqrt(3), rel=0.03)
    else:
        assert values.std() == pytest.approx(parameter, rel=0.03)
        truncated = name != "random_normal"
        limit = 2 * parameter / 0.87962566103423978
        assert (np.abs(values).max() <= limit * (1 + 1e-6)) == truncated


def test_initializers_repeat():
    convlet.set_random_seed(5)
    first = [layers.Dense(4) for _ in range(2)]
    for layer in first:
        layer(convlet.Input((3,)))
    a, b = (layer.get_weights()[0] for layer in first)
    convlet.set_random_seed(5)
    again = layers.Dense(4)
    again(convlet.Input((3,)))
    np.testing.assert_array_equal(again.get_weights()[0], a)
    assert (a != b).any()
    own = initializers.HeNormal(seed=3)
    np.testing.assert_array_equal(own((4, 4), seed=1), own((4, 4), seed=2))
    assert not initializers.get("zeros")((3,)).any()
    assert (initializers.get(initializers.Ones)((3,)) == 1).all()
    assert (initializers.Constant(2.5)((3,)) == 2.5).all()
    with pytest.raises(ValueError, match="scale: expected a positive number"):
        initializers.VarianceScaling(0)
    with pytest.raises(ValueError, match="set_random_seed: seed"):
        convlet.set_random_seed(-1)


def test_regularizers():
    w = floats(4, 5)
    assert regularizers.l1(0.1)(w) == pytest.approx(0.1 * np.abs(w).sum())
    assert regularizers.l2()(w) == pytest.approx(0.01 * np.square(w).sum())
    assert regularizers.get("l1_l2")(w) == pytest.approx(
        0.01 * np.abs(w).sum() + 0.01 * np.square(w).sum()
    )
    with pytest.raises(ValueError, match="L2: l2: expected a number >= 0, got -1"):
        regularizers.L2(-1)


def test_to_categorical():
    to_categorical = convlet.utils.to_categorical
    np.testing.assert_array_equal(to_categorical([0, 2]), [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(to_categorical([[1], [0]], 2), [[0, 1], [1, 0]])
    assert to_categorical([], 3).shape == (0, 3)
    assert to_categorical(np.array([1.0, 0.0])).dtype == np.float32
    for bad in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match=r"to_categorical: x: expected labels in \[0, 3\)"):
            to_categorical(bad, 3)
    with pytest.raises(ValueError, match="expected integers"):
        to_categorical([0.5])
