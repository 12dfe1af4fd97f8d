"""Every op that takes symbolic tensors: what a plan makes of it is what the op makes of arrays."""

import numpy as np
import pytest
import torch

import convlet
from convlet import layers, ops
from convlet.ops import dispatch, symbolic
from reference import floats

A, B = (5, 4, 6), (5, 4, 6)
FILTER, KERNEL = floats(3, 3, 2, 4), floats(6, 7)


def positive(*shape, seed=0):
    return np.abs(floats(*shape, seed=seed)) + np.float32(0.1)


# op: the calls of it, on one or two tensors of samples.
CALLS = {
    **{
        name: [getattr(ops, name)]
        for name in (
            *("exp", "square", "abs", "negative", "sign", "relu", "sigmoid", "tanh", "gelu"),
            *("silu", "relu6", "selu", "softplus", "hard_sigmoid", "hard_swish", "softmax"),
            "log_softmax",
        )
    },
    **{
        name: [lambda x, name=name: getattr(ops, name)(ops.abs(x) + 0.5)]
        for name in ("log", "log1p", "sqrt", "rsqrt", "reciprocal")
    },
    **{
        name: [
            lambda x, y, name=name: getattr(ops, name)(x, y),
            lambda x, name=name: getattr(ops, name)(x, 0.25),
            lambda x, name=name: getattr(ops, name)(0.25, x),
            lambda x, name=name: getattr(ops, name)(x, floats(4, 1)),
            lambda x, name=name: getattr(ops, name)(floats(1, 4, 6), x),
        ]
        for name in (
            *("add", "subtract", "multiply", "maximum", "minimum", "greater", "greater_equal"),
            *("less", "less_equal", "equal", "not_equal"),
        )
    },
    "divide": [
        lambda x, y: ops.divide(x, ops.abs(y) + 0.5),
        lambda x: ops.divide(x, 4.0),
        lambda x: ops.divide(3.0, ops.abs(x) + 0.5),
    ],
    "power": [
        lambda x, y: ops.power(ops.abs(x) + 0.5, y),
        lambda x: ops.power(x, 2),
        lambda x: ops.power(ops.abs(x) + 0.5, 1.7),
        lambda x: ops.power(2.0, x),
    ],
    "where": [
        lambda x, y: ops.where(x > y, x, 0.0),
        lambda x: ops.where(floats(4, 6) > 0, x, -x),
    ],
    "leaky_relu": [ops.leaky_relu, lambda x: ops.leaky_relu(x, 0.3)],
    "elu": [ops.elu, lambda x: ops.elu(x, 0.7)],
    **{
        name: [
            lambda x, name=name: getattr(ops, name)(x, axis=-1),
            lambda x, name=name: getattr(ops, name)(x, axis=(1, 2)),
            lambda x, name=name: getattr(ops, name)(x, 1, keepdims=True),
        ]
        for name in ("sum", "mean", "max", "min")
    },
    "reshape": [lambda x: ops.reshape(x, (-1, 8, 3))],
    "expand_dims": [lambda x: ops.expand_dims(x, 1), lambda x: ops.expand_dims(x, -1)],
    "squeeze": [lambda x: ops.squeeze(ops.expand_dims(x, 2), 2)],
    "transpose": [lambda x: ops.transpose(x, (0, 2, 1))],
    "concatenate": [
        lambda x, y: ops.concatenate([x, y], axis=1),
        lambda x, y: ops.concatenate([x, y, x]),
    ],
    "stack": [lambda x, y: ops.stack([x, y], axis=2)],
    "matmul": [
        lambda x, y: ops.matmul(x, y, transpose_b=True),
        lambda x, y: ops.matmul(x, y, transpose_a=True),
        lambda x: ops.matmul(ops.reshape(x, (-1, 6)), KERNEL) if numeric(x) else x @ KERNEL,
    ],
    "dense": [lambda x: ops.dense(flat(x), floats(24, 3), floats(3), activation="relu")],
    "conv2d": [
        lambda x: ops.conv2d(image(x), FILTER, stride=2, padding="same"),
        lambda x: ops.conv2d(image(x), FILTER, floats(4), padding=1, activation="tanh"),
    ],
    "max_pool2d": [lambda x: ops.max_pool2d(image(x), 2, stride=1)],
    "avg_pool2d": [lambda x: ops.avg_pool2d(image(x), (2, 1), padding=((1, 0), (0, 0)))],
    "upsample2d": [lambda x: ops.upsample2d(image(x), (2, 3), interpolation="bilinear")],
    "one_hot": [lambda x: ops.one_hot(labels(x), 4)],
}


def numeric(x):
    return isinstance(x, np.ndarray)


def flat(x):
    return ops.reshape(x, (-1, 24))


def image(x):
    return ops.reshape(x, (-1, 4, 3, 2))


def labels(x):
    """Whole numbers 0 to 3, made of comparisons."""
    y = ops.sum(ops.greater(x, 0.5), axis=-1)
    return ops.where(y > 3.0, 3.0, y)


CASES = [(name, i) for name, calls in CALLS.items() for i in range(len(calls))]


def test_the_table_has_every_op():
    assert set(CALLS) == set(dispatch.NAMES) == set(symbolic.FORMS)


@pytest.mark.parametrize(("name", "i"), CASES)
def test_the_plan_computes_what_the_op_does(name, i, tmp_path):
    call = CALLS[name][i]
    count = call.__code__.co_argcount - len(call.__defaults__ or ()) if "lambda" in str(call) else 1
    x = [floats(5, 4, 6, seed=k + 3) for k in range(count)]
    inputs = [convlet.Input((4, 6)) for _ in range(count)]
    model = convlet.Model(inputs, call(*inputs))
    expected = call(*x)
    y = model.predict(x)
    np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=2e-6, atol=1e-6)
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(convlet.load_model(tmp_path / "m.safetensors").predict(x), y)


def test_operators():
    x, y = floats(5, 3, 4), positive(5, 3, 4, seed=1)
    a, b = convlet.Input((3, 4)), convlet.Input((3, 4))

    def all_of(a, b):
        return [
            *(a + b, 1 + a, a - 1.5, 2 - a, a - b, a * 2, 3 * b, a / b, a / 2, 1 / b, 2 / b),
            *(b**2, b**0.5, b**-1, b**a, 2**a, -a, abs(a), floats(3, 4) - a, floats(4) * a),
            *(a[:, 1], a[:, 1:3], a[..., -1], a[:, None, :, 0], a[:, :, 1:], floats(1, 3, 4) / b),
        ]

    found = convlet.Model([a, b], all_of(a, b)).predict([x, y])
    for ours, theirs in zip(found, all_of(x, y), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    comparisons = [a > b, a >= 0, a < b, a <= 0]
    for ours, theirs in zip(
        convlet.Model([a, b], comparisons).predict([x, y]),
        (x > y, x >= 0, x < y, x <= 0),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


class Mixer(layers.Layer):
    """Weights in every position where an op may have them."""

    def build(self, input_shape):
        _, tokens, size = input_shape
        self.position = self.add_weight(shape=(1, tokens, size), name="position")
        self.scale = self.add_weight(shape=(size,), initializer="ones", name="scale")
        self.temperature = self.add_weight(initializer="ones", name="temperature")
        self.mix = self.add_weight(shape=(tokens, tokens), name="mix")
        self.w = self.add_weight(shape=(size, 3), name="w")
        self.b = self.add_weight(shape=(3,), initializer="zeros", name="b")

    def call(self, x):
        x = x + self.position
        x = x * ops.exp(self.scale) / (1.0 + ops.square(self.temperature))
        x = ops.softmax(self.mix) @ x
        x = ops.concatenate([self.position, x], axis=1)
        return x @ self.w + self.b + ops.matmul(x, ops.tanh(self.w))


class TorchMixer(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.p = torch.nn.ParameterList([torch.nn.Parameter(torch.from_numpy(w)) for w in weights])

    def forward(self, x):
        position, scale, temperature, mix, w, b = self.p[:6]
        x = (x + position) * scale.exp() / (1 + temperature**2)
        x = mix.softmax(-1) @ x
        x = torch.cat([position.expand(len(x), -1, -1), x], 1)
        y = x @ w + b + x @ w.tanh()
        return y.flatten(1) @ self.p[6] + self.p[7]


def test_weights_as_operands_train_as_in_torch():
    from torch_training import assert_trains_alike

    model = convlet.Sequential(
        [layers.Input((4, 6)), Mixer(), layers.Flatten(), layers.Dense(5)], name="m"
    )
    x, y = floats(40, 4, 6), np.arange(40) % 5
    assert_trains_alike(model, TorchMixer(model.get_weights()), x, y)
    assert [w.name for w in model.layers[0].weights][:3] == ["position", "scale", "temperature"]


def written(call):
    return type("Own", (layers.Layer,), {"call": call})()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda self, x: ops.mean(x), r"mean: expected axis, an axis or several other than 0"),
        (lambda self, x: ops.sum(x, axis=0), "sum: expected axis other than 0, the batch"),
        (lambda self, x: ops.max(x, axis=-3), "max: expected axis other than 0, the batch"),
        (lambda self, x: ops.sum(x, axis=3), r"sum: expected axis in \[-3, 3\) for shape"),
        (lambda self, x: ops.transpose(x), "that begins with 0, the batch"),
        (lambda self, x: x[0], "expected ':' for axis 0, the batch"),
        (lambda self, x: x[:, 4], r"expected an index in \[-4, 4\), got 4"),
        (lambda self, x: x[:, ::2], "expected slices of step 1"),
        (lambda self, x: x[:, 0, 0, 0], "at most 3 indices"),
        (lambda self, x: x[:, [1, 2]], r"expected integers, slices, None and \.\.\."),
        (lambda self, x: x / 0, "divide: expected a divisor other than 0"),
        (lambda self, x: x * float("inf"), "multiply: expected finite numbers"),
        (lambda self, x: x + "a", "add: expected symbolic tensors, weights, arrays and numbers"),
        (lambda self, x: x + np.zeros((5, 4, 6)), "without a batch axis"),
        (lambda self, x: x + np.zeros((3, 6)), r"Own 'own': call: add: .*shapes"),
        (lambda self, x: x @ x[:, 0], "matmul: expected matrices"),
        (lambda self, x: x @ np.zeros((5, 2)), r"call: dense: "),
        (lambda self, x: ops.one_hot(x, 0), "one_hot"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError, IndexError), match=message) as caught:
        written(call)(convlet.Input((4, 6)))
    assert str(caught.value).startswith("Own 'own': call: ")
