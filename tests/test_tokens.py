"""PatchEmbedding, ClassToken and PositionEmbedding, against torch."""

import numpy as np
import pytest
import torch

import convlet
from convlet import layers
from reference import assert_accurate, assert_exact, floats, nchw, run_torch
from torch_training import assert_trains_alike


def apply(layer, x):
    tensor = convlet.Input(x.shape[1:])
    return convlet.Model(tensor, layer(tensor)).predict(x)


def torch_patches(x, kernel, bias, patch):
    y = torch.nn.functional.conv2d(nchw(x), kernel.permute(3, 2, 0, 1), bias, stride=patch)
    return y.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("patch", [(4, 4), (2, 6), (12, 12), (1, 1)])
def test_patch_embedding(patch):
    layer = layers.PatchEmbedding(patch, 7, bias_initializer="random_normal")
    x = floats(3, 12, 12, 3)
    got = apply(layer, x)
    inputs = [x, *layer.get_weights()]
    y32, _ = run_torch(lambda *args: torch_patches(*args, patch), inputs)
    y64, _ = run_torch(lambda *args: torch_patches(*args, patch), inputs, dtype=torch.float64)
    assert_accurate(got, y32, y64)
    assert [w.name for w in layer.weights] == ["kernel", "bias"]
    plain = layers.PatchEmbedding(patch[0], 5, use_bias=False)
    assert plain(convlet.Input((12, 24, 1))).shape == (None, 12 // patch[0] * 24 // patch[0], 5)
    assert [w.shape for w in plain.weights] == [(patch[0], patch[0], 1, 5)]


def test_class_token():
    layer = layers.ClassToken("random_normal")
    x = floats(3, 5, 6)
    got = apply(layer, x)
    (token,) = layer.get_weights()
    assert token.shape == (1, 6)
    assert_exact(got[:, 1:], x)
    assert_exact(got[:, 0], np.repeat(token, 3, 0))


def test_first_token():
    x = floats(3, 5, 7)
    np.testing.assert_array_equal(layers.FirstToken()(x), x[:, 0])
    with pytest.raises(ValueError, match=r"FirstToken .*: inputs: expected tokens \(N,T,D\)"):
        layers.FirstToken()(convlet.Input((8,)))


def test_learned_positions():
    layer = layers.PositionEmbedding()
    x = floats(3, 5, 6)
    got = apply(layer, x)
    (embeddings,) = layer.get_weights()
    assert_exact(got, x + embeddings)
    assert 0 < np.abs(embeddings).max() <= 0.02 / 0.8796 * 2
    assert layer.trainable_weights == layer.weights


def test_sinusoidal_positions():
    layer = layers.PositionEmbedding("sinusoidal")
    got = apply(layer, np.zeros((1, 50, 8), np.float32))[0]
    t = np.arange(50)[:, None]
    angle = t / 10000 ** (np.array([0, 2, 4, 6]) / 8)
    np.testing.assert_allclose(got[:, 0::2], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(got[:, 1::2], np.cos(angle), atol=1e-6)
    assert layer.trainable_weights == []


def vision_transformer(kind="learned"):
    """Patches, a class token, positions, one attention with its residual, the class token's row."""
    image = convlet.Input((8, 8, 2))
    x = layers.PatchEmbedding(4, 6)(image)
    x = layers.ClassToken("random_normal")(x)
    x = layers.PositionEmbedding(kind)(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 3)(x, x)])
    return convlet.Model(image, layers.Dense(3)(layers.Flatten()(x)))


class TorchTransformer(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        values = [torch.from_numpy(w) for w in weights]
        kernel, bias, token, positions, wq, bq, wk, bk, wv, bv, wo, bo, head, head_bias = values
        self.kernel, self.bias = torch.nn.Parameter(kernel), torch.nn.Parameter(bias)
        self.token, self.positions = torch.nn.Parameter(token), torch.nn.Parameter(positions)
        self.attention = torch.nn.MultiheadAttention(6, 2, batch_first=True)
        self.attention.in_proj_weight.data = torch.cat([w.reshape(6, 6).T for w in (wq, wk, wv)])
        self.attention.in_proj_bias.data = torch.cat([b.reshape(6) for b in (bq, bk, bv)])
        self.attention.out_proj.weight.data = wo.reshape(6, 6).T.contiguous()
        self.attention.out_proj.bias.data = bo
        self.head = torch.nn.Linear(30, 3)
        self.head.weight.data, self.head.bias.data = head.T.contiguous(), head_bias

    def forward(self, x):
        x = torch_patches(x, self.kernel, self.bias, (4, 4))
        x = torch.cat([self.token.expand(len(x), 1, 6), x], 1) + self.positions
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x.flatten(1))


def test_fifty_steps_like_torch():
    model = vision_transformer()
    labels = np.random.default_rng(0).integers(0, 3, 40)
    module = TorchTransformer(model.get_weights())
    assert_trains_alike(model, module, floats(40, 8, 8, 2), labels)


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_saved_and_loaded(tmp_path, kind):
    model = vision_transformer(kind)
    x = floats(5, 8, 8, 2)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert_exact(loaded.predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.PatchEmbedding(0, 4), "patch_size: expected an integer >= 1"),
        (lambda: layers.PatchEmbedding(4, 0), "dim: expected an integer >= 1, got 0"),
        (
            lambda: layers.PatchEmbedding(5, 4)(convlet.Input((8, 10, 1))),
            r"patch_size: expected a divisor of the image's size \(8, 10\), got \(5, 5\)",
        ),
        (lambda: layers.PatchEmbedding(5, 4)(convlet.Input((8, 10))), "expected images"),
        (lambda: layers.ClassToken()(convlet.Input((8,))), r"expected tokens \(N,T,D\)"),
        (lambda: layers.PositionEmbedding("rotary"), "kind: expected 'learned' or 'sinusoidal'"),
        (
            lambda: layers.PositionEmbedding("sinusoidal")(convlet.Input((8, 5))),
            "inputs: expected an even size of tokens, got 5",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
