"""Losses that users write as functions or classes of ops, traced into the plan."""

import numpy as np
import pytest
import torch

import convlet
from convlet import layers, losses, ops
from reference import floats
from torch_training import assert_trains_alike


def squared(y_true, y_pred):
    difference = y_pred + -1.0 * y_true
    return difference * difference


class Squared(losses.Loss):
    """With an argument, and one value per sample and half of the columns."""

    def __init__(self, factor=1.0, name=None):
        super().__init__(name)
        self.factor = factor

    def call(self, y_true, y_pred):
        return squared(y_true, y_pred) * self.factor

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


def data(n=24, outputs=3):
    return floats(n, 6, seed=1), floats(n, outputs, seed=2)


def model(outputs=3, activation=None):
    convlet.set_random_seed(7)
    return convlet.Sequential(
        [layers.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(outputs, activation)]
    )


def curve(loss, steps=20, weights=None, **arguments):
    """The losses of some steps, the gradient's effect and the loss of a test."""
    net = model()
    net.compile(convlet.optimizers.SGD(0.1, momentum=0.9), loss, **arguments)
    x, y = data()
    values = [net.train_on_batch(x, y, sample_weight=weights) for _ in range(steps)]
    return np.array(values), net.get_weights(), net.test_on_batch(x, y, sample_weight=weights)


@pytest.mark.parametrize("weights", [None, np.arange(24) / 8], ids=["plain", "weighted"])
@pytest.mark.parametrize("own", [squared, Squared(), Squared(1.0)], ids=["function", "class", "o"])
def test_it_trains_like_the_built_in_one(own, weights):
    ours, theirs = curve(own, weights=weights), curve("mse", weights=weights)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    for a, b in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert ours[2] == pytest.approx(theirs[2], rel=1e-5)


def test_it_trains_like_torch():
    x, y = data(40)
    net = model()
    module = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    linear = [m for m in module if hasattr(m, "weight")]
    for layer, theirs in zip(net.layers, linear, strict=True):
        kernel, bias = layer.get_weights()
        theirs.weight.data, theirs.bias.data = torch.from_numpy(kernel.T), torch.from_numpy(bias)
    torch_loss = torch.nn.functional.mse_loss
    assert_trains_alike(net, module, x, y, loss=squared, torch_loss=torch_loss)


def test_on_arrays():
    x, y = data()
    assert losses.get(squared)(x[:, :3], y) == pytest.approx(((x[:, :3] - y) ** 2).mean(), 1e-6)
    weights = np.arange(24.0)
    expected = (((x[:, :3] - y) ** 2).mean(1) * weights).mean()
    assert Squared()(x[:, :3], y, weights) == pytest.approx(expected, 1e-6)
    assert Squared(3.0).name == "squared"
    with pytest.raises(ValueError, match="expected a value for each of 24 samples"):
        losses.get(lambda t, p: p[:5])(y, y)


def test_fit_with_validation_and_evaluate():
    x, y = data(60)
    net = model()
    net.compile("adam", squared, metrics=["mae"])
    history = net.fit(x, y, epochs=3, batch_size=16, validation_split=0.25, verbose=0).history
    assert set(history) == {"loss", "mae", "val_loss", "val_mae"}
    assert history["loss"][-1] < history["loss"][0]
    expected = ((net.predict(x) - y) ** 2).mean()
    assert net.evaluate(x, y, verbose=0)[0] == pytest.approx(expected, rel=1e-5)
    net.fit(((x, y) for _ in range(2)), steps_per_epoch=2, verbose=0)


def test_several_outputs_each_with_its_loss():
    a = convlet.Input((6,))
    trunk = layers.Dense(8, "relu")(a)
    heads = {"one": layers.Dense(3, name="one")(trunk), "two": layers.Dense(2, name="two")(trunk)}
    net = convlet.Model(a, heads)
    net.compile("sgd", {"one": squared, "two": Squared(2.0)}, {"one": 1.0, "two": 0.5})
    x, y = floats(12, 6), {"one": floats(12, 3, seed=1), "two": floats(12, 2, seed=2)}
    logs = net.evaluate(x, y, verbose=0, return_dict=True)
    outputs = net.predict(x)
    one = ((outputs["one"] - y["one"]) ** 2).mean()
    two = 2 * ((outputs["two"] - y["two"]) ** 2).mean()
    assert logs["one_loss"] == pytest.approx(one, rel=1e-5)
    assert logs["two_loss"] == pytest.approx(two, rel=1e-5)
    assert logs["loss"] == pytest.approx(one + 0.5 * two, rel=1e-5)
    assert net.fit(x, y, epochs=2, verbose=0).history["one_loss"][1] < logs["one_loss"]


def test_accuracy_beside_it_follows_the_targets():
    x = floats(20, 6)
    labels = np.arange(20) % 3
    one_hot = np.eye(3, dtype=np.float32)[labels]
    for y, loss, kind in (
        (one_hot, squared, "CategoricalAccuracy"),
        (labels, lambda t, p: p * p, "SparseCategoricalAccuracy"),
        (labels[:, None], lambda t, p: p * p, "SparseCategoricalAccuracy"),
    ):
        net = model(activation="softmax")
        net.compile("sgd", loss, metrics=["accuracy"])
        found = net.evaluate(x, y, verbose=0)[1]
        assert found == pytest.approx((net.predict(x).argmax(1) == labels).mean())
        assert net._compilation.meaning == {"accuracy": kind}
    net = model(1)
    net.compile("sgd", squared, metrics=["accuracy"])
    y = (labels > 0)[:, None]
    assert net.evaluate(x, y, verbose=0)[1] == pytest.approx(((net.predict(x) > 0) == y).mean())


def test_class_weight():
    x, labels = floats(20, 6), np.arange(20) % 3
    y = np.eye(3, dtype=np.float32)[labels]
    net, reference = model(), model()
    for m, loss in ((net, squared), (reference, "mse")):
        m.compile("sgd", loss)
        m.fit(x, y, epochs=2, class_weight={0: 3.0, 2: 0.5}, verbose=0)
    for a, b in zip(net.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", [squared, Squared(0.5)])
def test_save_and_load(tmp_path, loss):
    x, y = data()
    net = model()
    net.compile("adam", loss)
    net.fit(x, y, epochs=2, verbose=0)
    path = tmp_path / "m.safetensors"
    net.save(path)
    own = {"squared": squared, "Squared": Squared}
    loaded = convlet.load_model(path, custom_objects=own)
    assert net.train_on_batch(x, y) == loaded.train_on_batch(x, y)
    for a, b in zip(net.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.test_on_batch(x, y) == net.test_on_batch(x, y)
    name = type(loss).__name__ if isinstance(loss, losses.Loss) else "squared"
    with pytest.raises(ValueError, match=rf"the loss '{name}' is not convlet's: .*compile=False"):
        convlet.load_model(path)
    assert not convlet.load_model(path, compile=False).compiled
    with pytest.raises(ValueError, match="expected a class of loss or a function"):
        convlet.load_model(path, custom_objects={name: 3})


def test_a_constant_in_a_loss_is_not_a_weight(tmp_path):
    kernel = floats(3, 3)
    x, y = data()
    net = model()
    net.compile("adam", lambda t, p: ops.dense(p, kernel) * ops.dense(t, kernel))
    expected = ((net.predict(x) @ kernel) * (y @ kernel)).mean()
    assert net.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)
    net.save(tmp_path / "m.safetensors")
    assert not convlet.load_model(tmp_path / "m.safetensors", compile=False).compiled


def test_the_model_is_ready_before_data():
    net = model()
    net.compile("adam", squared, metrics=["accuracy"])
    lines = []
    net.summary(print_fn=lines.append)
    assert "inference" in lines[0]
    assert "training" not in lines[0]
    assert net.predict(floats(4, 6)).shape == (4, 3)
    net.fit(*data(), verbose=0)
    net.summary(print_fn=lines.append)
    assert "training" in lines[1]
    steps = net._engine().plan("predict", 4).steps()
    assert [step["kernel"] for step in steps] == ["dense", "dense"]


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda t, p: np.square(t), TypeError, "loss 'own': call: .*which numpy.square needs"),
        (lambda t, p: 3.0, ValueError, "loss 'own': call: result: expected symbolic tensors"),
        (lambda t, p: [p, p], ValueError, "loss 'own': expected one tensor, got 2"),
        (lambda t, p: ops.concatenate([t, p], 0), ValueError, "other than 0, the batch"),
        (lambda t, p: t if p > 0 else p, TypeError, "'>'|a branch"),
        (lambda t, p: ops.add(p, ops.reshape(t, (-1, 4))), ValueError, "newshape of 3 elements"),
    ],
)
def test_errors(loss, error, message):
    loss.__name__ = "own"
    net = model()
    net.compile("sgd", loss)
    with pytest.raises(error, match=message):
        net.fit(*data(), verbose=0)


def test_targets_are_checked():
    x, y = data()
    net = model()
    net.compile("sgd", squared)
    net.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"targets of shape \(None, 3\) for squared, as in the"):
        net.evaluate(x, y[:, :2], verbose=0)
    with pytest.raises(ValueError, match="y: expected an array of numbers"):
        net.fit(x, np.array(["a"] * 24), verbose=0)
    with pytest.raises(convlet.NonFiniteError, match="targets of output 'dense_1'"):
        net.fit(x, np.full((24, 3), np.nan), verbose=0)
    with pytest.raises(ValueError, match=r"a function \(y_true, y_pred\) or an object"):
        net.compile("sgd", 3)


def huber(y_true, y_pred, delta=1.0):
    error = ops.abs(y_true - y_pred)
    small, large = 0.5 * ops.square(error), delta * error - 0.5 * delta**2
    return ops.mean(ops.where(error <= delta, small, large), axis=-1)


def cross_entropy(y_true, y_pred):
    """Of integer labels and logits, from the definition."""
    picked = ops.one_hot(y_true, 3) * ops.log_softmax(y_pred)
    return -ops.sum(picked, axis=-1)


def torch_twin(net):
    module = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    linear = [m for m in module if hasattr(m, "weight")]
    for layer, theirs in zip(net.layers, linear, strict=True):
        kernel, bias = layer.get_weights()
        theirs.weight.data, theirs.bias.data = torch.from_numpy(kernel.T), torch.from_numpy(bias)
    return module


def test_a_hand_written_huber_is_torchs():
    x, y = data(40)
    net = model()
    torch_loss = torch.nn.functional.huber_loss
    assert_trains_alike(net, torch_twin(net), x, 3 * y, loss=huber, torch_loss=torch_loss)
    expected = torch_loss(torch.from_numpy(x[:, :3]), torch.from_numpy(3 * y)).item()
    assert losses.get(huber)(3 * y, x[:, :3]) == pytest.approx(expected, rel=1e-6)


def test_a_hand_written_cross_entropy_is_the_built_in_one_and_torchs():
    x, labels = floats(40, 6, seed=1), np.arange(40) % 3
    net = model()
    assert_trains_alike(net, torch_twin(net), x, labels, loss=cross_entropy)
    curves = []
    for loss in (cross_entropy, losses.SparseCategoricalCrossentropy(from_logits=True)):
        net = model()
        net.compile(convlet.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
        curves.append(net.fit(x, labels, epochs=10, batch_size=8, verbose=0).history)
    for key in ("loss", "accuracy"):
        np.testing.assert_allclose(curves[0][key], curves[1][key], rtol=1e-5)
    assert losses.get(cross_entropy)(labels, x[:, :3]) == pytest.approx(
        losses.SparseCategoricalCrossentropy(True)(labels, x[:, :3]), rel=1e-6
    )


def test_means_over_the_batch_are_understood():
    """As often written; sums and multiples of them too."""

    def combined(y_true, y_pred):
        return 0.5 * ops.mean(ops.square(y_true - y_pred)) + ops.mean(ops.abs(y_pred)) / 4 - 1.0

    x, y = data()
    net = model()
    net.compile("sgd", combined)
    p = net.predict(x)
    expected = 0.5 * ((p - y) ** 2).mean() + abs(p).mean() / 4 - 1
    assert net.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert losses.get(combined)(y, p) == pytest.approx(expected, rel=1e-5)
    weights = np.arange(24) / 12
    each = 0.5 * ((p - y) ** 2).mean(1) + abs(p).mean(1) / 4 - 1
    found = net.evaluate(x, y, sample_weight=weights, verbose=0)
    assert found == pytest.approx((each * weights).mean(), rel=1e-5)
    for wrong in (
        lambda t, p: ops.sqrt(ops.mean(ops.square(t - p))),
        lambda t, p: p / ops.mean(p),
        lambda t, p: ops.mean(p) * ops.mean(t),
    ):
        net.compile("sgd", wrong)
        with pytest.raises(ValueError, match="got a mean over the batch"):
            net.fit(x, y, verbose=0)
    net.compile("sgd", lambda t, p: ops.sum(p))
    with pytest.raises(ValueError, match="sum: expected axis, an axis or several other than 0"):
        net.fit(x, y, verbose=0)


def test_several_parts_and_numbers():
    """A loss with a weight for each class, and labels as targets."""
    weights = np.float32([1.0, 2.0, 4.0])

    def weighted(y_true, y_pred):
        t = ops.one_hot(y_true, 3)
        return ops.sum(-weights * t * ops.log_softmax(y_pred), axis=-1)

    x, labels = floats(9, 6), np.arange(9) % 3
    net = model()
    net.compile("sgd", weighted)
    z = torch.from_numpy(net.predict(x))
    parts = torch.nn.functional.cross_entropy(z, torch.from_numpy(labels), reduction="none")
    expected = (parts.numpy() * weights[labels]).mean()
    assert net.evaluate(x, labels, verbose=0) == pytest.approx(expected, rel=1e-5)
