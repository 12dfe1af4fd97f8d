"""load_torch_weights: networks give what torch's give with the same file."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from convlet import Input, Model, layers, optimizers
from convlet.applications import MODELS, load_torch_weights, multi_task
from convlet.applications.blocks import conv_bn, pooled_classifier
from convlet.applications.resnet import basic, stages
from reference import floats
from torch_models import logits, randomized, timm, torchvision
from torch_training import assert_trains_alike


def written(module, path):
    """The module's weights in the layout that torchvision and timm save."""
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)
    return path


def assert_same_outputs(model, module, tmp_path, x):
    """Logits within 1e-4 of what the images make of them: their difference between images."""
    load_torch_weights(model, written(module, tmp_path / "weights.safetensors"), verbose=False)
    expected = logits(module, x)
    scale = np.ptp(expected, axis=0).max()
    np.testing.assert_allclose(model.predict(x) / scale, expected / scale, rtol=0, atol=1e-4)


# (network, torchvision's name of it, side of the images, options of torchvision's)
FAMILIES = [
    ("alexnet", "alexnet", 224, {}),
    ("convnext_tiny", "convnext_tiny", 64, {}),
    ("densenet121", "densenet121", 64, {}),
    ("googlenet", "googlenet", 65, {"aux_logits": False, "init_weights": False}),
    ("inception_v3", "inception_v3", 80, {"aux_logits": False, "init_weights": False}),
    ("mobilenet_v2", "mobilenet_v2", 64, {}),
    ("resnet18", "resnet18", 65, {}),
    ("resnet34", "resnet34", 64, {}),
    ("resnet50", "resnet50", 96, {}),
]


@pytest.mark.parametrize(("name", "twin", "side", "options"), FAMILIES)
def test_networks(name, twin, side, options, tmp_path):
    torch.manual_seed(0)
    x = floats(2, side, side if name == "alexnet" else side + 3, 3)
    module = randomized(getattr(torchvision().models, twin)(num_classes=9, **options), x)
    model = MODELS[name](x.shape[1:], 9, classifier_activation=None)
    assert_same_outputs(model, module, tmp_path, x)


@pytest.mark.parametrize(
    ("name", "twin", "side", "options"),
    [
        ("convnext_tiny", "convnext_tiny", 64, {}),
        ("resnet50", "resnet50", 64, {}),
        ("se_resnet50", "seresnet50", 64, {}),
        ("vit_tiny", "vit_tiny_patch16_224", 48, {"img_size": 48}),
        ("vit_small", "vit_small_patch16_224", 32, {"img_size": 32}),
    ],
)
def test_networks_of_timm(name, twin, side, options, tmp_path):
    torch.manual_seed(0)
    x = floats(2, side, side, 3)
    module = randomized(timm().create_model(twin, num_classes=9, **options), x)
    patch = {"patch_size": 16} if name.startswith("vit") else {}
    model = MODELS[name]((side, side, 3), 9, classifier_activation=None, **patch)
    assert_same_outputs(model, module, tmp_path, x)


def test_vision_transformer_of_torchvision(tmp_path):
    torch.manual_seed(0)
    module = torchvision().models.VisionTransformer(
        image_size=32,
        patch_size=16,
        num_layers=12,
        num_heads=3,
        hidden_dim=192,
        mlp_dim=768,
        num_classes=9,
    )
    model = MODELS["vit_tiny"]((32, 32, 3), 9, patch_size=16, classifier_activation=None)
    x = floats(2, 32, 32, 3)
    assert_same_outputs(model, randomized(module, x), tmp_path, x)


def small_vgg(name):
    """torchvision's for images of 64x64: a first dense layer for 2x2 cells."""
    module = getattr(torchvision().models, name)(num_classes=1, init_weights=False)
    module.avgpool = torch.nn.Identity()
    module.classifier[0] = torch.nn.Linear(512 * 2 * 2, 4096)
    module.classifier[6] = torch.nn.Linear(4096, 7)
    return module


@pytest.mark.parametrize("name", ["vgg11", "vgg16_bn"])
def test_vgg(name, tmp_path):
    build, batch_norm = MODELS[name.removesuffix("_bn")], name.endswith("_bn")
    model = build((64, 64, 3), 7, batch_norm=batch_norm, classifier_activation=None)
    x = floats(2, 64, 64, 3)
    assert_same_outputs(model, randomized(small_vgg(name), x), tmp_path, x)


def test_pixels_with_the_normalization_of_imagenet(tmp_path, capsys):
    x = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    normalized = ((x / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).astype(np.float32)
    module = randomized(torchvision().models.mobilenet_v2(num_classes=3), normalized)
    model = MODELS["mobilenet_v2"]((40, 40, 3), 3, scale="imagenet", classifier_activation=None)
    load_torch_weights(model, written(module, tmp_path / "w.safetensors"))
    assert capsys.readouterr().out.endswith("; the model normalizes its input itself\n")
    expected = logits(module, normalized)
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_left_out(name, tmp_path):
    module = getattr(torchvision().models, name)(num_classes=3, init_weights=False)
    model = MODELS[name]((80, 80, 3), 3)
    load_torch_weights(model, written(module, tmp_path / "w.safetensors"), verbose=False)
    np.testing.assert_array_equal(model.get_weights()[-1], module.fc.bias.detach())


def test_densenet_of_old_has_other_names(tmp_path):
    """The file that torchvision downloads says norm.1 where its module says norm1."""
    x = floats(2, 32, 32, 3)
    module = randomized(torchvision().models.densenet121(num_classes=3), x)
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): value
        for name, value in module.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    save_file(state, tmp_path / "old.safetensors")
    model = MODELS["densenet121"]((32, 32, 3), 3, classifier_activation=None)
    load_torch_weights(model, tmp_path / "old.safetensors", verbose=False)
    expected = logits(module, x)
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-4 * np.abs(expected).max())


# A small network whose layers bear torch's names, for the rules that all have in common.


class Twin(torch.nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 6, 3, groups=2)
        self.depthwise = torch.nn.Conv2d(6, 12, 3, groups=6)
        self.hidden = torch.nn.Linear(12 * 4 * 5, 8)
        self.fc = torch.nn.Linear(8, classes)

    def forward(self, x):
        x = self.depthwise(torch.relu(self.conv(x)))
        return self.fc(torch.relu(self.hidden(x.flatten(1))))


def ours(classes=5):
    x = inputs = Input((8, 9, 4))
    x = layers.Conv2D(6, 3, groups=2, activation="relu", name="conv")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    return Model(inputs, layers.Dense(classes, name="fc")(x), name="twin")


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return Twin().eval()


def test_every_kind_of_layer(module, tmp_path):
    assert_same_outputs(ours(), module, tmp_path, floats(3, 8, 9, 4))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
def test_pth_through_torch(module, tmp_path, wrap):
    state = {f"module.{name}": value for name, value in module.state_dict().items()}
    torch.save(wrap(state), tmp_path / "weights.pth")
    model = ours()
    load_torch_weights(model, tmp_path / "weights.pth")
    x = floats(2, 8, 9, 4)
    np.testing.assert_allclose(model.predict(x), logits(module, x), atol=1e-5)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_is_not_executed(tmp_path, capsys):
    torch.save({"conv.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil.pth: torch cannot load it safely"):
        load_torch_weights(ours(), tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out


def test_a_pth_without_torch_says_what_to_do(module, tmp_path, monkeypatch):
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match="a .pth needs torch; with it, once: safetensors"):
        load_torch_weights(ours(), tmp_path / "weights.pth")


def test_another_head(module, tmp_path, capsys):
    path = written(module, tmp_path / "weights.safetensors")
    model = ours(classes=3)
    before = model.get_weights()
    with pytest.raises(ValueError) as error:
        load_torch_weights(model, path)
    assert str(error.value).endswith(
        "weights.safetensors: does not fit twin: of another shape fc.weight (5, 8) for fc/kernel "
        "(8, 3), fc.bias (5,) for fc/bias (3,); head='skip' leaves the last layer as it is, for "
        "another number of classes"
    )
    assert_equal(model.get_weights(), before)
    load_torch_weights(model, path, head="skip")
    out = capsys.readouterr().out
    assert re.fullmatch(
        r"twin: 6 weights from .*; fc: kernel and bias left at their initial values; the input is "
        r"taken as it is: normalize it as for these weights in torch \(or see scale=\)\n",
        out,
    )
    after = model.get_weights()
    assert_equal(after[-2:], before[-2:])
    assert not any(np.array_equal(a, b) for a, b in zip(after[:-2], before[:-2], strict=True))


def test_heads_for_several_tasks(tmp_path, capsys):
    torch.manual_seed(0)
    x = floats(2, 32, 32, 3)
    module = randomized(torchvision().models.mobilenet_v2(), x)
    path = written(module, tmp_path / "w.safetensors")
    model = multi_task(MODELS["mobilenet_v2"], (32, 32, 3), {"animal": 4, "size": 2})
    before = model.get_layer("animal").get_weights()
    with pytest.raises(ValueError, match="missing animal.weight, animal.bias, size.weight, size.b"):
        load_torch_weights(model, path)
    load_torch_weights(model, path, head="skip")
    assert "animal: kernel and bias left at" in capsys.readouterr().out
    assert_equal(model.get_layer("animal").get_weights(), before)
    pooled = Model(model.inputs, model.get_layer("animal").input)
    expected = module.features(torch.from_numpy(x).permute(0, 3, 1, 2)).mean((2, 3)).detach()
    np.testing.assert_allclose(pooled.predict(x), expected, atol=1e-4)


def assert_equal(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def saved(tmp_path, module, **changes):
    """A file of the module's weights with some replaced, added, or (None) left out."""
    state = {name: value for name, value in module.state_dict().items() if name not in changes}
    state |= {name: value for name, value in changes.items() if value is not None}
    save_file(state, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv.bias": None, "fc.bias": None}, r"missing conv.bias, fc.bias$"),
        ({"conv.extra": torch.ones(2)}, r"unexpected conv.extra$"),
        ({"hidden.weight": torch.ones(8, 9)}, r"another shape hidden.weight \(8, 9\) for hidden/k"),
        ({"hidden.weight": torch.ones(240, 8)}, r"another shape hidden.weight \(240, 8\)"),
        ({"conv.weight": torch.ones(2, 6, 3, 3)}, r"another shape conv.weight \(2, 6, 3, 3\)"),
        ({"fc.bias": None, "a": torch.ones(1)}, r"missing fc.bias; unexpected a$"),
        ({"fc.bias": torch.ones(5, dtype=torch.int32)}, "fc.bias: expected floating-point num"),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_changes(module, tmp_path, changes, message):
    model = ours()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        load_torch_weights(model, saved(tmp_path, module, **changes))
    assert_equal(model.get_weights(), before)


def test_half_precision_and_counts_of_batches(module, tmp_path):
    halved = {name: value.half() for name, value in module.state_dict().items()}
    halved["bn.num_batches_tracked"] = torch.tensor(3)
    model = ours()
    load_torch_weights(model, saved(tmp_path, module, **halved))
    np.testing.assert_array_equal(model.get_weights()[-1], halved["fc.bias"].float())


def test_a_layer_without_a_counterpart(tmp_path, module):
    inputs = Input((4,))
    outputs = layers.Dense(2, use_bias=False, name="fc")(inputs)
    model = Model(inputs, outputs)
    model.layers[-1].add_weight("strange", (1,))
    with pytest.raises(ValueError, match="Dense 'fc': torch's form of 'strange' is not known"):
        load_torch_weights(model, saved(tmp_path, module))


def test_bad_files(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"no")
    (tmp_path / "a.pth").write_bytes(b"no")
    (tmp_path / "a.h5").write_bytes(b"no")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError, match=r"load_torch_weights: .*none.pth: no such file"):
        load_torch_weights(ours(), tmp_path / "none.pth")
    for name, message in (
        ("a.safetensors", "cannot be read as safetensors"),
        ("a.pth", "torch cannot load it safely"),
        ("a.h5", "expected a .safetensors, .pth or .pt file"),
        ("list.pt", "expected a state dict"),
    ):
        with pytest.raises(ValueError, match=rf"{name}: {message}"):
            load_torch_weights(ours(), tmp_path / name)
    with pytest.raises(ValueError, match="head: expected 'load' or 'skip', got 'none'"):
        load_torch_weights(ours(), tmp_path / "a.pth", head="none")


class ChannelsLast(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.permute(0, 3, 1, 2))


def test_residual_blocks_train_like_torch(tmp_path):
    """resnet18_cifar with a block per stage: the rest would be the same, for longer."""
    torch.manual_seed(0)
    models = torchvision().models
    net = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=4)
    net.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = torch.nn.Identity()
    inputs = Input((8, 8, 3))
    x = conv_bn(inputs, 64, 3, names=("conv1", "bn1"))
    x = pooled_classifier(stages(x, basic, (1, 1, 1, 1)), 4, None, name="fc")
    model = Model(inputs, x)
    load_torch_weights(model, written(net, tmp_path / "w.safetensors"), verbose=False)
    assert_trains_alike(
        model,
        ChannelsLast(net),
        floats(16, 8, 8, 3),
        np.arange(16) % 4,
        batch=4,
        optimizer=optimizers.SGD(0.01, momentum=0.9),
        torch_optimizer=lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    )
