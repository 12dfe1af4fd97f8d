"""Learning rates and weight decay that differ between layers, and fine-tuning, against torch."""

import numpy as np
import pytest
import torch

import convlet
from classifiers import images
from convlet import Input, Sequential, layers, losses, optimizers
from reference import floats
from torch_training import assert_trains_alike, copy_weights

SCALES = (0.1, 1.0, 2.5)


class Twin(torch.nn.Module):
    """A convolution, a dense layer and logits."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(2, 5, 3)
        self.hidden = torch.nn.Linear(49 * 5, 7)
        self.logits = torch.nn.Linear(7, 3)

    def forward(self, x):
        x = torch.relu(self.convolution(x.permute(0, 3, 1, 2)))
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.logits(torch.tanh(self.hidden(x)))


def small():
    return Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(5, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(7, activation="tanh"),
            layers.Dense(3),
        ]
    )


def weighted(model):
    return [layer for layer in model.layers if layer.weights]


def optimizer_steps(model, batch=4):
    plan = model._engine().new_plan("train", batch)
    return [step["kernel"] for step in plan.steps()].count("optimizer")


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_learning_rate_scales_as_torchs_parameter_groups(name):
    model, module = small(), Twin()
    copy_weights(model, module)
    for layer, scale in zip(weighted(model), SCALES, strict=True):
        layer.learning_rate_scale = scale
    ours, theirs = {
        "sgd": (
            optimizers.SGD(0.05, momentum=0.9, weight_decay=0.0),
            lambda groups: torch.optim.SGD(groups, momentum=0.9),
        ),
        "adam": (optimizers.Adam(0.002, epsilon=1e-9), lambda g: torch.optim.Adam(g, eps=1e-9)),
        "adamw": (
            optimizers.AdamW(0.002, weight_decay=0.5, epsilon=1e-9),
            lambda g: torch.optim.AdamW(g, weight_decay=0.5, eps=1e-9),
        ),
        "rmsprop": (
            optimizers.RMSprop(0.002, epsilon=1e-7),
            lambda g: torch.optim.RMSprop(g, alpha=0.9, eps=1e-7),
        ),
    }[name]
    rate = ours.learning_rate

    def grouped(parameters):
        pairs = [parameters[i : i + 2] for i in range(0, 6, 2)]  # weight and bias of a layer
        return theirs([{"params": p, "lr": rate * s} for p, s in zip(pairs, SCALES, strict=True)])

    x, y = images(80)
    assert_trains_alike(model, module, x, y, optimizer=ours, torch_optimizer=grouped, rtol=1e-3)
    assert optimizer_steps(model) == 3


def test_equal_scales_are_one_launch():
    model = small()
    model.compile("adam", losses.SparseCategoricalCrossentropy(True))
    assert optimizer_steps(model) == 1
    for layer in model.layers:
        layer.learning_rate_scale = 0.5
    model.compile("adam", losses.SparseCategoricalCrossentropy(True))
    assert optimizer_steps(model) == 1
    model.layers[0].learning_rate_scale = 0.25
    model.compile("adam", losses.SparseCategoricalCrossentropy(True))
    assert optimizer_steps(model) == 2


def test_scales_change_nothing_but_the_rate():
    """A step of SGD with scale s is s times the step of scale 1, in the scaled layer alone."""
    x, y = images(8)
    steps = {}
    for scale in (1.0, 0.25):
        convlet.set_random_seed(3)
        model = small()
        weighted(model)[1].learning_rate_scale = scale
        model.compile(optimizers.SGD(0.5), losses.SparseCategoricalCrossentropy(True))
        model.set_weights([np.round(w * 64) / 64 for w in model.get_weights()])
        before = model.get_weights()
        model.train_on_batch(x, y)
        steps[scale] = [a - b for a, b in zip(model.get_weights(), before, strict=True)]
    for i, (whole, part) in enumerate(zip(steps[1.0], steps[0.25], strict=True)):
        factor = 0.25 if i in (2, 3) else 1.0
        np.testing.assert_allclose(part, factor * whole, rtol=1e-4, atol=1e-7)


def test_scales_of_models_in_models_are_multiplied():
    inner = Sequential([Input((4,)), layers.Dense(5), layers.Dense(3)], name="inner")
    x = Input((4,))
    model = convlet.Model(x, layers.Dense(2)(inner(x)))
    inner.learning_rate_scale = 0.5
    inner.layers[1].learning_rate_scale = 0.5
    model.learning_rate_scale = 0.5
    model.compile(optimizers.SGD(1.0), "mse")
    before = model.get_weights()
    rows, y = floats(6, 4), floats(6, 2)
    model.train_on_batch(rows, y)
    scaled = [a - b for a, b in zip(model.get_weights(), before, strict=True)]
    model.set_weights(before)
    for layer in (inner, inner.layers[1], model):
        layer.learning_rate_scale = 1.0
    model.compile(optimizers.SGD(1.0), "mse")
    model.train_on_batch(rows, y)
    whole = [a - b for a, b in zip(model.get_weights(), before, strict=True)]
    factors = [0.25, 0.25, 0.125, 0.125, 0.5, 0.5]
    for part, step, factor in zip(scaled, whole, factors, strict=True):
        np.testing.assert_allclose(part, factor * step, rtol=1e-4, atol=1e-6)


def test_a_scale_of_zero_keeps_a_layer_as_it_is():
    x, y = images(16)
    model = small()
    model.layers[0].learning_rate_scale = 0.0
    model.compile(optimizers.AdamW(0.01), losses.SparseCategoricalCrossentropy(True))
    before = model.get_weights()
    model.fit(x, y, batch_size=4, verbose=0)
    for old, new in zip(before[:2], model.get_weights()[:2], strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", True, None])
def test_scales_that_are_no_numbers(value):
    layer = layers.Dense(3, name="head")
    with pytest.raises(ValueError, match="'head': learning_rate_scale: expected a number >= 0"):
        layer.learning_rate_scale = value
    assert layer.learning_rate_scale == 1.0


def test_groups_are_saved(tmp_path):
    x, y = images(16)
    model = small()
    model.layers[0].learning_rate_scale = 0.125
    optimizer = optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[0].weights[0]], var_names=["bias"])
    model.compile(optimizer, losses.SparseCategoricalCrossentropy(True))
    model.fit(x, y, batch_size=4, verbose=0)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert loaded.layers[0].learning_rate_scale == 0.125
    assert loaded.optimizer.exempt_from_weight_decay == ["bias", "^conv2d/kernel$"]
    for m in (model, loaded):
        m.fit(x, y, batch_size=4, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------ weight decay


def test_weight_decay_without_the_biases_as_in_torch():
    model, module = small(), Twin()
    copy_weights(model, module)
    optimizer = optimizers.AdamW(0.002, weight_decay=2.0, epsilon=1e-9)
    optimizer.exclude_from_weight_decay(var_names=["bias"])

    def grouped(parameters):
        matrices = [p for p in parameters if p.ndim > 1]
        biases = [p for p in parameters if p.ndim == 1]
        groups = [{"params": matrices}, {"params": biases, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, 0.002, weight_decay=2.0, eps=1e-9)

    x, y = images(80)
    assert_trains_alike(
        model, module, x, y, optimizer=optimizer, torch_optimizer=grouped, rtol=1e-3
    )
    assert optimizer_steps(model) == 2


def test_what_is_exempt_from_weight_decay():
    """With learning rate 1 and weight decay 1 a weight that decays is its own negative gradient."""
    x, y = images(8)
    model = small()
    model.set_weights([np.ones_like(w) for w in model.get_weights()])
    optimizer = optimizers.SGD(1.0, weight_decay=1.0)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[3].weights[0]], var_names=["^conv"])
    model.compile(optimizer, losses.SparseCategoricalCrossentropy(True))
    model.train_on_batch(x, y)
    gradients = [model._engine().state.gradient(i) for i in range(6)]
    keeps = [True, True, False, False, True, False]  # the kernel and bias of each layer
    for weight, gradient, keep in zip(model.get_weights(), gradients, keeps, strict=True):
        expected = (1.0 if keep else 0.0) - gradient.reshape(weight.shape)
        np.testing.assert_array_equal(weight, expected)


def test_exclusions_that_fit_nothing():
    x, y = images(8)
    model = small()
    optimizer = optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bais"])
    model.compile(optimizer, losses.SparseCategoricalCrossentropy(True))
    with pytest.raises(ValueError, match=r"expected weights among \['conv2d/kernel.*got \['bais'"):
        model.fit(x, y)
    optimizer = optimizers.AdamW()
    optimizer.exclude_from_weight_decay([small().layers[0].weights[0]])
    model.compile(optimizer, losses.SparseCategoricalCrossentropy(True))
    with pytest.raises(ValueError, match="expected weights among"):
        model.fit(x, y)
    with pytest.raises(ValueError, match="var_names: expected a list of strings, got 'bias'"):
        optimizers.SGD().exclude_from_weight_decay(var_names="bias")
    model.compile("adamw", losses.SparseCategoricalCrossentropy(True))
    model.train_on_batch(x, y)
    with pytest.raises(ValueError, match="to be called before the model is trained"):
        model.optimizer.exclude_from_weight_decay(var_names=["bias"])


# ------------------------------------------------------------ fine-tuning


class Watch(convlet.callbacks.Callback):
    """Remembers the weights after each epoch."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())


def test_fine_tune_trains_the_head_then_everything():
    x, y = images(48)
    model = small()
    model.layers[2].trainable = False  # stays so
    start = model.get_weights()
    model.compile("adam", losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    watch = Watch()
    history = convlet.fine_tune(
        model, x, y, head_epochs=2, epochs=3, batch_size=8, verbose=0, callbacks=watch
    )
    assert history.epoch == [0, 1, 2, 3, 4]
    assert len(history.history["loss"]) == len(history.history["accuracy"]) == 5
    moved = [
        [not np.array_equal(a, b) for a, b in zip(weights, start, strict=True)]
        for weights in watch.weights
    ]
    assert moved[:2] == 2 * [[False] * 4 + [True] * 2]
    assert moved[2:] == 3 * [[True, True, False, False, True, True]]
    assert [layer.trainable for layer in model.layers] == [True, True, False, True]
    scales = [layer.learning_rate_scale for layer in weighted(model)]
    assert scales == [0.1, 0.1, 1.0]
    assert optimizer_steps(model) == 2


def test_fine_tune_is_two_fits():
    x, y = images(48)
    options = {"batch_size": 8, "verbose": 0}
    by_hand, helped = small(), small()
    helped.set_weights(by_hand.get_weights())
    helped.seed = by_hand.seed
    loss = losses.SparseCategoricalCrossentropy(True)
    helped.compile(optimizers.SGD(0.1, momentum=0.9), loss)
    helped.fit(x, y, verbose=0)  # what the optimizer has gathered does not count
    helped.optimizer.learning_rate = 0.05
    helped.set_weights(by_hand.get_weights())
    convlet.fine_tune(
        helped, x, y, head="dense_1", head_epochs=1, epochs=1, learning_rate_scale=0.5, **options
    )
    for layer in by_hand.layers[:-1]:
        layer.trainable = False
    by_hand.compile(optimizers.SGD(0.05, momentum=0.9), loss)
    by_hand.fit(x, y, **options)
    for layer in by_hand.layers[:-1]:
        layer.trainable = True
        layer.learning_rate_scale = 0.5
    by_hand.compile(optimizers.SGD(0.05, momentum=0.9), loss)
    by_hand.fit(x, y, **options)
    for a, b in zip(helped.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fine_tune_that_is_stopped_in_the_first_phase_thaws():
    x, y = images(16)
    model = small()
    model.compile("sgd", losses.SparseCategoricalCrossentropy(True))

    def stop(epoch, logs):
        model.stop_training = True

    stopper = convlet.callbacks.LambdaCallback(on_epoch_end=stop)
    history = convlet.fine_tune(model, x, y, verbose=0, callbacks=[stopper])
    assert history.epoch == [0]
    assert all(layer.trainable for layer in model.layers)
    before = model.get_weights()
    model.train_on_batch(x, y)
    moved = [not np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True)]
    assert all(moved)


def test_a_frozen_backbone_keeps_its_batch_statistics():
    x, y = images(32)
    model = Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    model.compile("adam", losses.SparseCategoricalCrossentropy(True))
    start, watch = model.get_weights(), Watch()
    convlet.fine_tune(
        model, x, y, head_epochs=1, epochs=1, batch_size=8, verbose=0, callbacks=[watch]
    )
    for statistics in (4, 5):  # after kernel, bias, gamma and beta
        np.testing.assert_array_equal(watch.weights[0][statistics], start[statistics])
        assert np.abs(watch.weights[1][statistics] - start[statistics]).max() > 1e-3


def test_fine_tune_freezes_models_in_the_model():
    inner = Sequential([Input((4,)), layers.Dense(5), layers.Dense(3)], name="backbone")
    inner.layers[0].trainable = False
    x = Input((4,))
    model = convlet.Model(x, layers.Dense(2, name="head")(inner(x)))
    model.compile("sgd", "mse")
    convlet.fine_tune(
        model, floats(6, 4), floats(6, 2), head=["head"], head_epochs=0, epochs=1, verbose=0
    )
    assert inner.trainable
    assert [layer.trainable for layer in inner.layers] == [False, True]
    assert inner.learning_rate_scale == 0.1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"head": "dens"}, ValueError, "get_layer: name: expected one of"),
        ({"head": "flatten"}, ValueError, r"head: expected layers with weights of \['conv2d'"),
        ({"head": []}, ValueError, "head: expected layers with weights of"),
        ({"head": ["conv2d", "dense", "dense_1"]}, ValueError, "head: expected a part of"),
        ({"head_epochs": -1}, ValueError, "head_epochs"),
        ({"learning_rate_scale": -1}, ValueError, "learning_rate_scale"),
        ({"initial_epoch": 1}, TypeError, "unexpected argument 'initial_epoch'"),
    ],
)
def test_fine_tune_names_what_it_cannot_take(options, error, message):
    x, y = images(8)
    model = small()
    with pytest.raises(RuntimeError, match="expected a compiled model"):
        convlet.fine_tune(model, x, y, **options)
    model.compile("sgd", losses.SparseCategoricalCrossentropy(True))
    with pytest.raises(error, match=message):
        convlet.fine_tune(model, x, y, **options)
    assert all(layer.trainable for layer in model.layers)
