"""Layers that join, gate, drop and enlarge branches: 50 training steps against torch, and files."""

import numpy as np
import torch
import torch.nn.functional as F

import convlet
import device_tests
from convlet import layers
from reference import assert_exact, floats, nchw, nhwc
from torch_training import assert_trains_alike, copy_weights


class Twin(torch.nn.Module):
    """A squeeze-and-excitation gate, an enlarged branch, and extremes of two branches."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(2, 6, 3, padding=1)
        self.squeeze = torch.nn.Linear(6, 4)
        self.excite = torch.nn.Linear(4, 6)
        self.right = torch.nn.Conv2d(6, 5, 3)  # the deeper one: the model's layers too
        self.left = torch.nn.Conv2d(6, 5, 3)
        self.head = torch.nn.Linear(5, 4)

    def forward(self, x):
        x = F.relu(self.stem(nchw(x)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        x = x + x * gate[:, :, None, None]
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        left, right = self.left(x), self.right(x)
        x = (torch.maximum(left, right) + torch.minimum(left, right * right)) / 2 - left
        return self.head(x[:, :, 1:-1, 1:-1].mean((2, 3)))


def branches():
    image = convlet.Input((5, 5, 2))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Dense(6, activation="sigmoid")(layers.Dense(4, activation="relu")(gate))
    x = layers.Add()([x, layers.Multiply()([x, gate])])
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    left, right = layers.Conv2D(5, 3)(x), layers.Conv2D(5, 3)(x)
    square = layers.Multiply()([right, right])
    extremes = [layers.Maximum()([left, right]), layers.Minimum()([left, square])]
    x = layers.Subtract()([layers.Average()(extremes), left])
    x = layers.GlobalAveragePooling2D()(layers.Cropping2D(1)(x))
    return convlet.Model(image, layers.Dense(4)(x))


def test_branches_train_like_torch(tmp_path):
    convlet.set_random_seed(5)
    model, twin = branches(), Twin()
    copy_weights(model, twin)
    x, y = floats(24, 5, 5, 2), np.random.default_rng(0).integers(0, 4, 24)
    assert_trains_alike(model, twin, x, y)
    model.save(tmp_path / "m.safetensors")
    assert_exact(convlet.load_model(tmp_path / "m.safetensors").predict(x), model.predict(x))


def test_structured_dropout_trains_and_predicts_without_noise():
    convlet.set_random_seed(1)
    image = convlet.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.SpatialDropout2D(0.2)(x)
    branch = layers.StochasticDepth(0.3)(layers.Conv2D(8, 3, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, branch]))
    model = convlet.Model(image, layers.Dense(2, activation="softmax")(x))
    data = floats(64, 6, 6, 3)
    labels = (data.mean((1, 2, 3)) > 0).astype(np.int64)
    data += (labels[:, None, None, None] - 0.5).astype(np.float32)
    model.compile("adam", "sparse_categorical_crossentropy")
    epochs = 5 if device_tests.device() == "simt" else 20
    history = model.fit(data, labels, epochs=epochs, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert_exact(model.predict(data), model.predict(data))


def test_the_gate_is_what_torch_computes():
    x, gate = floats(3, 4, 5, 6), floats(3, 6, seed=1)
    got = layers.Multiply()([x, gate])
    expected = nhwc(nchw(torch.from_numpy(x)) * torch.from_numpy(gate)[:, :, None, None])
    assert_exact(got, expected.numpy())
