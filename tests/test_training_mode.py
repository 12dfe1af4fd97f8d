"""training=False in the call of a layer or model: as in inference, while the whole is trained."""

import numpy as np
import pytest

import convlet
from convlet import Input, Model, Sequential, layers, optimizers
from reference import floats

KINDS = {
    "dropout": lambda: layers.Dropout(0.5),
    "spatial dropout": lambda: layers.SpatialDropout2D(0.5),
    "stochastic depth": lambda: layers.StochasticDepth(0.5),
    "batch norm": lambda: layers.BatchNormalization(momentum=0.5),
    "flip": lambda: layers.RandomFlip(),
    "contrast": lambda: layers.RandomContrast(0.5, (-9, 9)),
    "crop": lambda: layers.RandomCrop(5, 4),
}


def trained(call, shape=(8, 6, 3)):
    """A compiled model with one call in it, and a batch for it."""
    convlet.set_random_seed(3)
    x = Input(shape)
    model = Model(x, layers.Dense(4, name="head")(layers.Flatten()(call(x))))
    model.compile(optimizers.SGD(0.1), "mse")
    return model, (floats(12, *shape), floats(12, 4, seed=1))


def losses(model, batch):
    """The loss of a batch in inference, and in training before the update."""
    return model.test_on_batch(*batch), model.train_on_batch(*batch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer(kind):
    model, batch = trained(lambda x: KINDS[kind]()(x, training=False))
    inference, training = losses(model, batch)
    assert training == pytest.approx(inference, rel=1e-6)
    model, batch = trained(lambda x: KINDS[kind]()(x))
    inference, training = losses(model, batch)
    assert training != pytest.approx(inference, rel=1e-3)


def gru(x, training):
    return layers.GRU(5, dropout=0.5)(x, training=training)


def attention(x, training):
    return layers.MultiHeadAttention(2, 3, dropout=0.5)(x, x, training=training)


@pytest.mark.parametrize("layer", [gru, attention])
def test_a_layer_with_dropout_inside(layer):
    for mode, same in ((False, True), (None, False)):
        model, batch = trained(lambda x, mode=mode: layer(x, mode), shape=(7, 3))
        inference, training = losses(model, batch)
        assert (training == pytest.approx(inference, rel=1e-5)) is same


def base():
    return Sequential(
        [
            layers.Conv2D(4, 3, input_shape=(8, 6, 3)),
            layers.BatchNormalization(momentum=0.5),
            layers.Dropout(0.5),
        ],
        name="base",
    )


def around(inner, training):
    x = Input((8, 6, 3))
    model = Model(x, layers.Dense(4)(layers.Flatten()(inner(x, training=training))))
    model.compile(optimizers.SGD(0.1), "mse")
    return model


def test_a_model_in_a_model_learns_but_keeps_its_averages(tmp_path):
    batch = floats(12, 8, 6, 3), floats(12, 4, seed=1)
    inner = base()
    outer = around(inner, training=False)
    before = inner.get_weights()
    inference, training = losses(outer, batch)
    assert training == pytest.approx(inference, rel=1e-6)
    kernel, bias, gamma, beta, mean, variance = (
        not np.array_equal(a, b) for a, b in zip(before, inner.get_weights(), strict=True)
    )
    assert (kernel, bias, gamma, beta, mean, variance) == (True,) * 4 + (False,) * 2
    outer.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert loaded.train_on_batch(*batch) == outer.train_on_batch(*batch)
    assert loaded.train_on_batch(*batch) == pytest.approx(outer.test_on_batch(*batch), rel=1e-6)


def test_one_layer_in_both_modes():
    drop = layers.Dropout(0.5)
    x = Input((1000,))
    model = Model(x, [drop(x, training=False), drop(x)])
    model.compile(optimizers.SGD(0.1), "mse")
    ones = np.ones((4, 1000), np.float32)
    _, kept, dropped = model.train_on_batch(ones, [ones, ones])
    assert kept == 0
    assert dropped == pytest.approx(1, rel=0.1)  # (0 or 2) - 1, squared


class Block(layers.Layer):
    """Passes training on to one of its layers and decides for the other."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dropout(0.5), layers.Dropout(0.5)

    def call(self, x, training=None):
        return self.second(self.first(x, training=training), training=False)


def test_a_traced_call_passes_it_on():
    ones = np.ones((4, 1000), np.float32)
    for training, expected in ((None, 1), (False, 0)):
        x = Input((1000,))
        model = Model(x, Block()(x, training=training))
        model.compile(optimizers.SGD(0.1), "mse")
        assert model.train_on_batch(ones, ones) == pytest.approx(expected, rel=0.1)


def test_true_is_refused():
    x, values = Input((4,)), floats(2, 4)
    model = Sequential([layers.Dense(3, input_shape=(4,))])
    for call in (layers.Dropout(0.5), layers.Dense(3), model):
        for data in (x, values):
            with pytest.raises(
                ValueError, match="training: expected None .* or False .*, got True"
            ):
                call(data, training=True)
    tokens = Input((3, 4))
    with pytest.raises(ValueError, match="training: expected None"):
        layers.MultiHeadAttention(1, 2)(tokens, tokens, training=True)
    np.testing.assert_array_equal(layers.Dropout(0.5)(values, training=False), values)
    np.testing.assert_array_equal(model(values, training=False), model.predict(values))
