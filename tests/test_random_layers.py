"""The Random* layers: what they draw, in training only, and where they may stand."""

import numpy as np
import pytest

import convlet
from convlet import _core, layers
from reference import assert_exact, floats

LAYERS = [
    layers.RandomFlip(),
    layers.RandomFlip("horizontal"),
    layers.RandomFlip("vertical"),
    layers.RandomRotation(0.1),
    layers.RandomRotation((-0.1, 0.3), fill_mode="constant", fill_value=7.0),
    layers.RandomTranslation(0.2, (-0.1, 0.3), fill_mode="wrap"),
    layers.RandomZoom(0.3),
    layers.RandomZoom((0.1, 0.4), (-0.5, 0.0), fill_mode="nearest", interpolation="nearest"),
    layers.RandomCrop(9, 5),
    layers.RandomContrast(0.4),
    layers.RandomContrast((0.1, 0.9), value_range=(-1, 1)),
    layers.RandomBrightness(0.2),
    layers.RandomBrightness((-0.5, 0.1), value_range=(-2, 2)),
]


def copy(layer):
    return type(layer).from_config(layer.get_config())


def classifier(*first, size=(13, 10, 3)):
    convlet.set_random_seed(4)
    model = convlet.Sequential(
        [convlet.Input(size), *first, layers.Flatten(), layers.Dense(3, activation="softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def drawn(layer, shape=(20, 30, 3), count=3000):
    """What is drawn for `count` images, by name."""
    found = _core.augment_draws(layer.settings(), shape, np.arange(count), 0, 0, 0)
    return {name: np.array([d[name] for d in found]) for name in found[0]}


def check_range(values, low, high):
    assert low <= values.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < values.max() <= high


class TestDraws:
    def test_flip(self):
        for mode in ("horizontal", "vertical", "horizontal_and_vertical"):
            found = drawn(layers.RandomFlip(mode))
            for way in ("horizontal", "vertical"):
                expected = 0.5 if way in mode else 0
                assert abs(found[f"flip_{way}"].mean() - expected) < 0.04
        agree = (found["flip_horizontal"] == found["flip_vertical"]).mean()
        assert abs(agree - 0.5) < 0.04

    def test_rotation_is_a_share_of_a_full_turn(self):
        check_range(drawn(layers.RandomRotation(0.1))["rotation"], -36, 36)
        check_range(drawn(layers.RandomRotation((-0.5, 0.25)))["rotation"], -180, 90)

    def test_translation_goes_down_and_right(self):
        found = drawn(layers.RandomTranslation((0.1, 0.5), (-0.2, 0.0)))
        check_range(found["shift_h"], -10, -2)  # the source's shift is the other way
        check_range(found["shift_w"], 0, 6)

    def test_zoom(self):
        found = drawn(layers.RandomZoom(0.2))
        check_range(found["zoom_h"], 0.8, 1.2)
        assert_exact(found["zoom_w"], found["zoom_h"])
        found = drawn(layers.RandomZoom((-0.3, -0.2), (0.0, 0.5)))
        check_range(found["zoom_h"], 0.7, 0.8)
        check_range(found["zoom_w"], 1.0, 1.5)

    def test_crop(self):
        windows = drawn(layers.RandomCrop(18, 27))["window"]
        assert set(windows[:, 0]) == {0, 1, 2}
        assert set(windows[:, 1]) == {0, 1, 2, 3}

    def test_colour(self):
        check_range(drawn(layers.RandomContrast(0.4))["contrast"], 0.6, 1.4)
        check_range(drawn(layers.RandomContrast((0.1, 0.9)))["contrast"], 0.9, 1.9)
        check_range(drawn(layers.RandomBrightness(0.2))["brightness_shift"], -51, 51)
        layer = layers.RandomBrightness((0.0, 1.0), value_range=(-1, 1))
        check_range(drawn(layer)["brightness_shift"], 0, 2)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
class TestInModels:
    def test_training_is_the_op(self, layer):
        """A train step sees what the op makes of (seed, count of batches, position, value)."""
        model = classifier(layer := copy(layer))
        both = convlet.Model(model.inputs, [layer.output, model.output])
        both.compile("sgd", [None, "sparse_categorical_crossentropy"])
        x, y = 100 + 50 * floats(7, 13, 10, 3), np.arange(7) % 3
        seen = []
        for step in range(3):
            both.train_on_batch(x, [None, y])
            got = both._engine().output("train", 0)
            call = (None, None, both.seed, step, 1, None, None, "float32", None)
            assert_exact(got, _core.augment(layer.settings(), x, *call))
            seen.append(got)
        assert not np.array_equal(seen[0], seen[1])

    def test_elsewhere_it_is_the_identity_or_the_middle(self, layer):
        x = floats(3, 13, 10, 3)
        inputs = convlet.Input((13, 10, 3))
        model = convlet.Model(inputs, copy(layer)(inputs))
        middle = x[:, 2:11, 2:7] if isinstance(layer, layers.RandomCrop) else x
        assert_exact(model.predict(x), middle)

    def test_save_and_load(self, layer, tmp_path):
        model = classifier(copy(layer))
        x, y = floats(5, 13, 10, 3), np.arange(5) % 3
        model.fit(x, y, verbose=0)
        model.save(tmp_path / "m.safetensors")
        loaded = convlet.load_model(tmp_path / "m.safetensors")
        assert loaded.layers[0].get_config() == model.layers[0].get_config()
        for trained in (model, loaded):
            trained.fit(x, y, epochs=2, verbose=0)
        for one, two in zip(model.get_weights(), loaded.get_weights(), strict=True):
            assert_exact(one, two)

    def test_threads_do_not_matter(self, layer):
        x, y = floats(70, 13, 10, 3), np.arange(70) % 3
        before = _core.num_threads()
        weights = []
        try:
            for threads in (1, 2, 5):
                _core.set_num_threads(threads)
                model = classifier(copy(layer))
                model.fit(x, y, epochs=2, verbose=0)
                weights.append(model.get_weights()[0])
        finally:
            _core.set_num_threads(before)
        for other in weights[1:]:
            assert_exact(other, weights[0])


def test_chain_of_layers_trains():
    model = classifier(
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.05),
        layers.RandomCrop(9, 9),
        layers.RandomBrightness(0.1),
        layers.Rescaling(1 / 255),
    )
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.integers(0, 60, (90, 13, 10, 3)) + 80 * np.eye(3)[y][:, None, None]
    history = model.fit(x.astype(np.uint8), y, epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    assert (model.predict(x.astype(np.uint8)).argmax(axis=1) == y).mean() > 0.95


def test_a_trainable_layer_before_it_is_refused():
    model = classifier(layers.Conv2D(3, 3), layers.RandomFlip())
    x, y = floats(4, 13, 10, 3), np.arange(4) % 3
    message = "random_flip: random changes of images pass no gradient back; expected no trainable"
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0)
    assert model.predict(x).shape == (4, 3)
    model.layers[0].trainable = False  # then nothing has to be passed back
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: layers.RandomFlip("sideways"), "RandomFlip .*: mode: expected one of .*sideways"),
        (lambda: layers.RandomRotation(1.5), r"RandomRotation .*: factor: .* in \[-1.0, 1.0\]"),
        (lambda: layers.RandomRotation("a"), "RandomRotation .*: factor: expected a number"),
        (lambda: layers.RandomRotation(0.1, fill_mode="mirror"), "fill_mode: expected one of"),
        (lambda: layers.RandomRotation(0.1, interpolation="cubic"), "interpolation: expected one"),
        (lambda: layers.RandomTranslation(0.1, (1, 2, 3)), "width_factor: expected a number or"),
        (
            lambda: layers.RandomZoom((-1.0, 0.0)),
            r"RandomZoom .*: height_factor: expected .*-0.999",
        ),
        (lambda: layers.RandomCrop(0, 3), "RandomCrop .*: height: expected an integer >= 1, got 0"),
        (lambda: layers.RandomContrast(2), r"RandomContrast .*: factor: .* in \[0, 1\]"),
        (
            lambda: layers.RandomContrast(0.1, value_range=(1, 0)),
            "value_range: expected .low, high",
        ),
        (lambda: layers.RandomBrightness(0.1, data_format="channels_first"), "data_format"),
        (lambda: classifier(layers.RandomCrop(14, 5)), r"random_crop: expected a crop of at most"),
        (
            lambda: classifier(layers.Flatten(), layers.RandomFlip()),
            "random_flip: augment expected",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
