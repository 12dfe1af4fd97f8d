"""layers.Normalization: fixed or found from data, saved with the model, left alone by training."""

import numpy as np
import pytest

import convlet
from convlet import Sequential, layers
from convlet.layers import Normalization
from reference import floats

MEAN, VARIANCE = [1.0, -2.0, 3.0], [0.25, 4.0, 100.0]


@pytest.mark.parametrize("shape", [(5, 3), (4, 6, 7, 3), (0, 2, 3), (3, 2, 5, 4, 3)])
def test_formula(shape):
    x = 10 * floats(*shape)
    y = Normalization(mean=MEAN, variance=VARIANCE)(x)
    np.testing.assert_allclose(y, (x - MEAN) / np.sqrt(VARIANCE), rtol=1e-5, atol=1e-6)


def test_one_number_for_all_channels_and_no_variance():
    x = floats(4, 2, 2, 3)
    np.testing.assert_allclose(Normalization(mean=1, variance=4)(x), (x - 1) / 2, rtol=1e-6)
    # As Keras: never divided by less than 1e-7.
    np.testing.assert_allclose(Normalization(mean=0, variance=0)(x), x * 1e7, rtol=1e-5)


def test_bytes():
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    y = Normalization(mean=[127.5] * 3, variance=[127.5**2] * 3)(x)
    np.testing.assert_allclose(y, x / 127.5 - 1, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_adapt(dtype):
    x = np.random.default_rng(0).integers(0, 256, (600, 3, 4, 2)).astype(dtype)
    layer = Normalization()
    layer.adapt(x, batch_size=32)
    y = layer(x)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, rtol=1e-6)
    layer.adapt(2 * x.astype(np.float32) + 1)  # a built layer takes the new numbers
    np.testing.assert_allclose(layer(2 * x.astype(np.float32) + 1), y, atol=1e-5)


def test_training_leaves_it_alone_and_saving_keeps_it(tmp_path):
    x, y = 100 + 50 * floats(32, 3), np.arange(32) % 2
    norm = Normalization()
    norm.adapt(x)
    model = Sequential([convlet.Input((3,)), norm, layers.Dense(2, activation="softmax")])
    before = [w.copy() for w in norm.get_weights()]
    assert len(model.trainable_weights) == 2
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=2, verbose=0)
    for a, b in zip(before, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    again = Normalization.from_config(norm.get_config())
    np.testing.assert_array_equal(again(x), norm(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normalization(mean=1), "mean and variance: expected both or none"),
        (lambda: Normalization(variance=1), "mean and variance: expected both or none"),
        (lambda: Normalization(mean="a", variance=1), "mean: expected a finite number"),
        (lambda: Normalization(mean=0, variance=-1), "variance: expected numbers >= 0"),
        (lambda: Normalization(mean=[0, np.nan], variance=1), "mean: expected a finite number"),
        (lambda: Normalization(mean=0, variance=1, invert=True), "invert: expected False"),
        (lambda: Normalization(axis=1.5), "axis: expected an integer"),
        (lambda: Normalization()(floats(2, 3)), "expected mean and variance, or a call of adapt"),
        (lambda: Normalization(mean=[1, 2], variance=1)(floats(2, 3)), "mean: expected 1 or 3 num"),
        (lambda: Normalization(0, mean=0, variance=1)(floats(2, 3)), "axis: expected -1 or 1"),
        (lambda: Normalization().adapt([]), "data: expected numbers"),
        (lambda: Normalization().adapt(["a", "b"]), "data: expected numbers"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=f"Normalization 'normalization': {message}"):
        make()
