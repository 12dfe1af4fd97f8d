"""The networks of convlet.applications: parameters, sizes of image, errors, training, saving."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import convlet
from convlet import applications
from convlet.applications import MODELS, SMALLEST
from torch_models import timm, torchvision

# Trainable parameters with the default input and classes. The papers' own for those that
# torchvision does not have.
PARAMETERS = {
    "alexnet": 61_100_840,
    "cifar_cnn": 122_570,
    "cifar_small": 315_722,
    "convnext_tiny": 28_589_128,
    "densenet121": 7_978_856,
    "googlenet": 6_624_904,
    "gru_classifier": 61_962,
    "img224": 23_908_682,
    "inception_v3": 23_834_568,
    "lenet": 61_706,
    "lstm_classifier": 81_674,
    "mnist_cnn": 93_322,
    "mobilenet_v2": 3_504_872,
    "nin": 966_986,
    "resnet18": 11_689_512,
    "resnet18_cifar": 11_173_962,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "se_resnet50": 28_088_024,
    "vgg11": 132_863_336,
    "vgg16": 138_357_544,
    "vit_base": 86_567_656,
    "vit_small": 22_050_664,
    "vit_tiny": 5_717_416,
}
IN_TORCHVISION = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "googlenet",
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "vgg11",
    "vgg16",
)


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


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("se_resnet50", "seresnet50"),
        ("vit_small", "vit_small_patch16_224"),
        ("vit_tiny", "vit_tiny_patch16_224"),
    ],
)
def test_timm_counts_the_same(name, twin):
    with torch.device("meta"):
        module = timm().create_model(twin)
    assert sum(p.numel() for p in module.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["vgg11", "vgg16"])
def test_vgg_with_batch_normalization(name):
    published = torchvision().models.get_model_weights(f"{name}_bn").DEFAULT.meta["num_params"]
    assert trainable(MODELS[name](batch_norm=True)) == published


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
        build((96, 96), 10)
    with pytest.raises(ValueError, match=f"{name}: input_shape: expected positive sizes"):
        build((96, 96, 0), 10)
    with pytest.raises(ValueError, match=f"{name}: classes: expected an integer >= 1, got 0"):
        build((96, 96, 3), 0)
    with pytest.raises(ValueError, match="activation: expected None or one of"):
        build((96, 96, 3), 10, classifier_activation="sofmax")


@pytest.mark.parametrize(
    ("size", "patch"), [((8, 8), 1), ((28, 28), 2), ((32, 48), 4), ((224, 224), 16), ((100, 75), 5)]
)
def test_patches_of_small_images(size, patch):
    model = applications.vit_tiny((*size, 1), 2)
    assert model.get_layer("patch_embed.proj").patch_size == (patch, patch)


def test_patches_that_do_not_fit():
    with pytest.raises(ValueError, match="vit_tiny: patch_size: expected a divisor of 32 and 32"):
        applications.vit_tiny((32, 32, 3), patch_size=5)


def test_a_model_for_every_name():
    assert set(applications.__all__) > set(MODELS)
    for name, build in MODELS.items():
        assert build is getattr(applications, name)
        assert build((96, 96, 1), 2).name == name


@pytest.mark.parametrize(
    ("scale", "mean", "deviation"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("inception", 0.5, 0.5),
    ],
)
def test_pixels_are_normalized_as_for_torch(scale, mean, deviation):
    model = applications.lenet((12, 12, 3), 2, scale=scale)
    x = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), np.uint8)
    expected = (x / 255 - mean) / deviation
    np.testing.assert_allclose(model.layers[0](x), expected, rtol=1e-6, atol=1e-6)
    assert trainable(model) == trainable(applications.lenet((12, 12, 3), 2))


def test_names_of_scales():
    with pytest.raises(ValueError, match="lenet: scale: expected a number, 'imagenet' or 'incep"):
        applications.lenet(scale="image")
    with pytest.raises(ValueError, match="expected a number for images of 1 channels, got 'imag"):
        applications.lenet(scale="imagenet")


@pytest.mark.parametrize("name", ["lenet", "nin", "resnet18_cifar", "gru_classifier", "vit_tiny"])
def test_saved_and_loaded(name, tmp_path):
    model = MODELS[name]((20, 24, 3), 5, scale="imagenet", classifier_activation="sigmoid")
    x = np.random.default_rng(0).integers(0, 256, (4, 20, 24, 3), np.uint8)
    model.save(tmp_path / "model.safetensors")
    loaded = convlet.load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))


PAGE = Path(__file__).parent.parent / "docs" / "models.md"


def test_the_page_lists_every_network():
    row = r"^\| `(\w+)` \| ([\d,]+) \| (.+?), (\d+) \| (\d+) \|"
    rows = re.findall(row, PAGE.read_text(), re.M)
    assert [row[0] for row in rows] == list(MODELS)
    for name, count, shape, classes, smallest in rows:
        model = MODELS[name](tuple(map(int, shape.split("x"))), int(classes))
        assert trainable(model) == int(count.replace(",", "")), name
        assert SMALLEST.get(name, 1) == int(smallest), name


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_file(torchvision().models.mobilenet_v2().state_dict(), "mobilenet_v2.safetensors")
    x = np.random.default_rng(0).integers(0, 256, (4, 160, 160, 3), np.uint8)
    names = {"convlet": convlet, "x": x, "y": np.array([0, 1, 0, 1])}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        exec(code, names)
    assert "classifier.1: kernel and bias left at their initial values" in capsys.readouterr().out
    assert convlet.load_model("pets.safetensors").classify(x[0])[0].name in ("cat", "dog")
