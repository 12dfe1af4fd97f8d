"""The networks of convlet.applications: parameters, sizes of image, errors, training, saving."""

import numpy as np
import pytest

import convlet
from convlet import applications
from convlet.applications import MODELS, SMALLEST
from torch_models import torchvision

# Trainable parameters with the default input and classes. The papers' own for those that
# torchvision does not have.
PARAMETERS = {
    "alexnet": 61_100_840,
    "cifar_cnn": 122_570,
    "cifar_small": 315_722,
    "img224": 23_908_682,
    "lenet": 61_706,
    "mnist_cnn": 93_322,
    "nin": 966_986,
    "vgg11": 132_863_336,
    "vgg16": 138_357_544,
}
IN_TORCHVISION = ("alexnet", "vgg11", "vgg16")


def trainable(model):
    return sum(variable.size for variable in model.trainable_weights)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name):
    assert trainable(MODELS[name]()) == PARAMETERS[name]


@pytest.mark.parametrize("name", IN_TORCHVISION)
def test_torchvision_counts_the_same(name):
    published = torchvision().models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert published == PARAMETERS[name]
    model = MODELS[name]()
    assert (model.input_shape, model.output_shape) == ((None, 224, 224, 3), (None, 1000))


@pytest.mark.parametrize("name", MODELS)
def test_the_smallest_image(name, monkeypatch):
    """It trains; one pixel less is refused, and would leave a layer nothing."""
    smallest = SMALLEST.get(name, 1)
    model = MODELS[name]((smallest, smallest + 1, 2), 3, scale=0.5)
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    assert np.isfinite(model.train_on_batch(np.ones((2, smallest, smallest + 1, 2)), [0, 2]))
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    if smallest > 1:
        too_small = (smallest + 5, smallest - 1, 2)
        message = f"{name}: input_shape: expected images of at least {smallest}x{smallest}, got"
        with pytest.raises(ValueError, match=message):
            MODELS[name](too_small, 3)
        monkeypatch.delitem(SMALLEST, name)
        with pytest.raises(ValueError, match="expected"):
            MODELS[name](too_small, 3)


@pytest.mark.parametrize("name", MODELS)
def test_bad_arguments_are_named(name):
    build = MODELS[name]
    with pytest.raises(ValueError, match=rf"{name}: input_shape: expected \(height, width, chan"):
        build((64, 64), 10)
    with pytest.raises(ValueError, match=f"{name}: input_shape: expected positive sizes"):
        build((64, 64, 0), 10)
    with pytest.raises(ValueError, match=f"{name}: classes: expected an integer >= 1, got 0"):
        build((64, 64, 3), 0)
    with pytest.raises(ValueError, match="activation: expected None or one of"):
        build((64, 64, 3), 10, classifier_activation="sofmax")


def test_a_model_for_every_name():
    assert set(applications.__all__) > set(MODELS)
    for name, build in MODELS.items():
        assert build is getattr(applications, name)
        assert build((64, 64, 1), 2).name == name


@pytest.mark.parametrize("name", ["lenet", "nin"])
def test_saved_and_loaded(name, tmp_path):
    model = MODELS[name]((20, 24, 3), 5, scale=1 / 255, classifier_activation="sigmoid")
    x = np.random.default_rng(0).integers(0, 256, (4, 20, 24, 3), np.uint8)
    model.save(tmp_path / "model.safetensors")
    loaded = convlet.load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
