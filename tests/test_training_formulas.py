"""Training step by step as in torch, gradients by finite differences, losses by their formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import convlet
from classifiers import cnn, images
from convlet import Input, Sequential, layers, losses, optimizers
from reference import floats, nchw

torch.set_num_threads(1)  # torch's spinning threads would get in the way of convlet's


def torch_logits(x, k1, b1, k2, b2, w, b):
    """The same network in torch, from convlet's weights."""
    x = torch.relu(F.conv2d(nchw(x), k1.permute(3, 2, 0, 1), b1))
    x = F.pad(F.max_pool2d(x, 2), (0, 1, 0, 1))
    x = torch.tanh(F.conv2d(x, k2.permute(3, 2, 0, 1), b2))
    return x.permute(0, 2, 3, 1).reshape(len(x), -1) @ w + b


def keras_adam(parameters, gradients, state, step, rate):
    """Keras' Adam: epsilon is added to sqrt(v) before the correction of the bias."""
    alpha = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    for p, g, (m, v) in zip(parameters, gradients, state, strict=True):
        m += 0.1 * (g - m)
        v += 0.001 * (g * g - v)
        p -= alpha * m / (v.sqrt() + 1e-7)


def keras_sgd(parameters, gradients, state, step, rate):
    for p, g, (v, _) in zip(parameters, gradients, state, strict=True):
        v.mul_(0.9).sub_(rate * g)
        p += v


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_hundred_steps_as_in_torch(name):
    x, y = images(16 * 20)
    model = cnn()
    optimizer = optimizers.SGD(0.02, momentum=0.9) if name == "sgd" else optimizers.Adam(0.002)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    weights = [torch.tensor(w, requires_grad=True) for w in model.get_weights()]
    state = [(torch.zeros_like(w), torch.zeros_like(w)) for w in weights]
    update, rate = (keras_sgd, 0.02) if name == "sgd" else (keras_adam, 0.002)
    ours, theirs = [], []
    for step in range(100):
        rows = slice(16 * (step % 20), 16 * (step % 20 + 1))
        ours.append(model.train_on_batch(x[rows], y[rows]))
        logits = torch_logits(torch.from_numpy(x[rows]), *weights)
        loss = F.cross_entropy(logits, torch.from_numpy(y[rows]))
        theirs.append(loss.item())
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            update(weights, gradients, state, step + 1, rate)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert ours[-1] < 0.5 * ours[0]


def total_loss(model, x, y, weight):
    return model.test_on_batch(x, y, sample_weight=weight, return_dict=True)["loss"]


@pytest.mark.parametrize(
    ("loss", "head"),
    [
        ("sparse_categorical_crossentropy", "softmax"),
        (losses.SparseCategoricalCrossentropy(from_logits=True), None),
        (losses.CategoricalCrossentropy(label_smoothing=0.1), "softmax"),
        (losses.BinaryCrossentropy(label_smoothing=0.2), "sigmoid"),
        (losses.BinaryCrossentropy(from_logits=True), None),
        ("mse", "gelu"),
    ],
)
def test_gradients_of_a_whole_model_by_finite_differences(loss, head):
    x, labels = images(7)
    weight = np.linspace(0.5, 2, 7)
    # Without kinks, where differences would not be gradients.
    model = Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(5, 3, activation="tanh", kernel_regularizer="l2"),
            layers.AveragePooling2D(2),
            layers.DepthwiseConv2D(2, depth_multiplier=2, activation="silu"),
            layers.Flatten(),
            layers.Dense(3, activation=head),
        ]
    )
    model.compile(optimizers.SGD(1.0), loss)
    integer = losses.get(loss).integer_labels
    y = labels if integer else convlet.utils.to_categorical(labels, 3)
    before = model.get_weights()
    model.train_on_batch(x, y, sample_weight=weight)
    # With rate 1 and no momentum the step is the negative gradient.
    gradients = [b - a for a, b in zip(model.get_weights(), before, strict=True)]
    rng = np.random.default_rng(0)
    for i, gradient in enumerate(gradients):
        direction = rng.standard_normal(gradient.shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        values = []
        for h in (1e-2, -1e-2):
            moved = [w + h * direction if j == i else w for j, w in enumerate(before)]
            model.set_weights(moved)
            values.append(total_loss(model, x, y, weight))
        slope = (values[0] - values[1]) / 2e-2
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.02, abs=2e-4)


def test_losses_of_a_plan_are_those_of_the_loss_objects():
    x, labels = images(11)
    one_hot = convlet.utils.to_categorical(labels, 3)
    weight = np.linspace(0, 2, 11)
    cases = [
        (losses.SparseCategoricalCrossentropy(), "softmax", labels),
        (losses.SparseCategoricalCrossentropy(from_logits=True), None, labels[:, None]),
        (losses.SparseCategoricalCrossentropy(ignore_class=1), "softmax", labels),
        (losses.CategoricalCrossentropy(label_smoothing=0.1), "softmax", one_hot),
        (losses.CategoricalCrossentropy(from_logits=True), None, one_hot),
        (losses.BinaryCrossentropy(), "sigmoid", one_hot),
        (losses.BinaryCrossentropy(True, 0.3), None, one_hot),
        (losses.MeanSquaredError(), "tanh", one_hot),
    ]
    for loss, head, y in cases:
        model = cnn(head=head)
        model.compile("sgd", loss)
        outputs = model.predict(x)
        for w in (None, weight):
            got = model.test_on_batch(x, y, sample_weight=w)
            assert got == pytest.approx(loss(y, outputs, w), rel=1e-5), (loss.name, head)


def test_loss_objects_against_torch():
    logits, labels = floats(9, 4, scale=2), np.arange(9) % 4
    p = torch.softmax(torch.from_numpy(logits), -1).numpy()
    t, z = torch.from_numpy(labels), torch.from_numpy(logits)
    one_hot = convlet.utils.to_categorical(labels)
    close = {"rel": 1e-5}
    expected = F.cross_entropy(z, t).item()
    assert losses.SparseCategoricalCrossentropy()(labels, p) == pytest.approx(expected, **close)
    assert losses.SparseCategoricalCrossentropy(True)(labels, logits) == pytest.approx(expected)
    assert losses.CategoricalCrossentropy()(one_hot, 3 * p) == pytest.approx(expected, **close)
    ignored = losses.SparseCategoricalCrossentropy(True, ignore_class=2)
    assert ignored(labels, logits) == pytest.approx(
        F.cross_entropy(z, t, ignore_index=2).item(), **close
    )
    smooth = F.cross_entropy(z, t, label_smoothing=0.1).item()
    assert losses.CategoricalCrossentropy(True, 0.1)(one_hot, logits) == pytest.approx(smooth)
    binary = F.binary_cross_entropy_with_logits(z, torch.from_numpy(one_hot)).item()
    assert losses.BinaryCrossentropy(True)(one_hot, logits) == pytest.approx(binary, **close)
    sigmoid = 1 / (1 + np.exp(-logits))
    assert losses.BinaryCrossentropy()(one_hot, sigmoid) == pytest.approx(binary, **close)
    squares = F.mse_loss(z, torch.from_numpy(one_hot)).item()
    assert losses.MeanSquaredError()(one_hot, logits) == pytest.approx(squares, **close)
