"""Layers and models that users write with call(), and the ops on symbolic tensors in them."""

import numpy as np
import pytest
import torch

import convlet
from convlet import layers, ops
from reference import floats
from torch_training import assert_trains_alike


class Linear(layers.Layer):
    """As in Keras' guide, with a fused bias."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="w"
        )
        self.b = self.add_weight(shape=(self.units,), initializer="zeros", name="b")

    def call(self, inputs):
        return ops.dense(inputs, self.w, self.b)

    def get_config(self):
        return super().get_config() | {"units": self.units}


class Residual(layers.Layer):
    """Layers in layers, used with ops between them."""

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.steps = [layers.Conv2D(channels, 3, padding="same") for _ in range(2)]

    def call(self, x, training=None):
        y = ops.relu(self.steps[0](x, training=training))
        return ops.relu(x + self.steps[1](y))

    def get_config(self):
        return super().get_config() | {"channels": self.channels}


class Net(convlet.Model):
    def __init__(self, channels=6):
        super().__init__()
        self.stem = layers.Conv2D(channels, 3, activation="relu")
        self.blocks = [Residual(channels), Residual(channels)]
        self.pool = layers.GlobalAveragePooling2D()
        self.head = Linear(5)

    def call(self, x, training=None):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(self.pool(x))


OWN = {"Linear": Linear, "Residual": Residual, "Net": Net}


class TorchResidual(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = torch.nn.Conv2d(channels, channels, 3, padding=1)
        self.second = torch.nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class TorchNet(torch.nn.Module):
    def __init__(self, channels=6):
        super().__init__()
        self.stem = torch.nn.Conv2d(1, channels, 3)
        self.blocks = torch.nn.Sequential(TorchResidual(channels), TorchResidual(channels))
        self.head = torch.nn.Linear(channels, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x.permute(0, 3, 1, 2)))
        return self.head(self.blocks(x).mean((2, 3)))


def digits(n=40):
    rng = np.random.default_rng(3)
    return floats(n, 8, 8, 1, seed=4), rng.integers(0, 5, n)


def take_weights(model, module):
    """The weights of a model of convolutions and dense layers in the order of a torch module's."""
    for ours, theirs in zip(model.get_weights(), module.parameters(), strict=True):
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[ours.ndim]
        theirs.data.copy_(torch.from_numpy(ours.transpose(axes).copy()))


def test_a_subclassed_model_trains_as_in_torch(monkeypatch):
    x, y = digits()
    model, module = Net(), TorchNet()
    model.build((None, 8, 8, 1))
    take_weights(model, module)
    assert_trains_alike(model, module, x, y)


def test_the_plan_is_that_of_convlets_own_layers():
    """No step more than the same network written with layers, and the same bits."""
    x, y = digits()
    inputs = convlet.Input((8, 8, 1))
    z = layers.Conv2D(6, 3, activation="relu")(inputs)
    for _ in range(2):
        t = layers.Conv2D(6, 3, padding="same", activation="relu")(z)
        t = layers.Add()([z, layers.Conv2D(6, 3, padding="same")(t)])
        z = layers.ReLU()(t)
    built_in = convlet.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(z)))
    own = Net()
    own.build((None, 8, 8, 1))
    assert [w.shape for w in own.weights] == [w.shape for w in built_in.weights]
    built_in.set_weights(own.get_weights())
    for model in (own, built_in):
        loss = convlet.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(convlet.optimizers.SGD(0.1), loss)
        for _ in range(3):
            model.train_on_batch(x, y)
    for a, b in zip(own.get_weights(), built_in.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    kernels = [
        [(step["name"], step["kernel"]) for step in model._engine().plan("train", 8).steps()]
        for model in (own, built_in)
    ]
    assert kernels[0] == kernels[1]


def test_names_and_weights():
    model = convlet.Sequential([layers.Input((8, 8, 4)), Residual(4), Residual(4, name="last")])
    assert [p.name for p in model._engine().parameters][:4] == [
        "residual/conv2d/kernel",
        "residual/conv2d/bias",
        "residual/conv2d_1/kernel",
        "residual/conv2d_1/bias",
    ]
    block = model.layers[1]
    assert [layer.name for layer in block.sublayers] == ["conv2d", "conv2d_1"]
    assert len(block.weights) == 4
    assert model.count_params() == 8 * (4 * 4 * 9 + 4) // 2
    linear = Linear(3)
    linear.build((None, 7))
    assert [w.name for w in linear.weights] == ["w", "b"]
    assert linear.w.shape == (7, 3)


def test_trainable():
    model = convlet.Sequential([layers.Input((8, 8, 4)), Residual(4), layers.Flatten(), Linear(5)])
    block = model.layers[0]
    block.steps[1].trainable = False
    assert len(block.trainable_weights) == 2
    assert len(block.non_trainable_weights) == 2
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.train_on_batch(floats(6, 8, 8, 4), floats(6, 5))
    moved = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert moved == [True, True, False, False, True, True]
    block.trainable = False
    assert not block.steps[0].trainable
    assert block.trainable_weights == []


@pytest.mark.parametrize("kind", ["sequential", "functional", "subclass"])
def test_save_and_load(tmp_path, kind):
    x, y = digits(12)
    if kind == "sequential":
        model = convlet.Sequential(
            [layers.Conv2D(4, 3), Residual(4), layers.Flatten(), Linear(5), layers.Softmax()]
        )
    elif kind == "functional":
        inputs = convlet.Input((8, 8, 1))
        t = ops.max_pool2d(ops.relu(layers.Conv2D(4, 3)(inputs)) * 0.5 + 1.0, 2)
        t = ops.reshape(t, (-1, 36))
        model = convlet.Model(inputs, ops.softmax(Linear(5)(t)))
    else:
        model = Net(channels=6)
    model.predict(x)
    if kind != "functional":
        block = model.layers[1 if kind == "sequential" else 2]
        block.steps[0].trainable = False
        block.steps[1].learning_rate_scale = 0.5
    model.compile("adam", convlet.losses.SparseCategoricalCrossentropy(kind == "subclass"))
    model.train_on_batch(x, y)
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = convlet.load_model(path, custom_objects=OWN)
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    if kind != "functional":
        steps = loaded.layers[1 if kind == "sequential" else 2].steps
        assert [step.trainable for step in steps] == [False, True]
        assert [step.learning_rate_scale for step in steps] == [1.0, 0.5]
    losses = [m.train_on_batch(x, y) for m in (model, loaded)]
    assert losses[0] == losses[1]
    missing = {"sequential": "Residual", "functional": "Linear", "subclass": "Net"}[kind]
    with pytest.raises(ValueError, match=rf"class '{missing}'.*custom_objects={{'{missing}'"):
        convlet.load_model(path)
    with pytest.raises(ValueError, match=f"expected a subclass of .*Layer for '{missing}'"):
        convlet.load_model(path, OWN | {missing: print})


def test_a_model_of_ops_alone_needs_no_class(tmp_path):
    inputs = convlet.Input((6, 6, 2))
    edges = np.float32([[1, 0, -1]] * 3).reshape(3, 3, 1, 1).repeat(2, 3)
    t = ops.conv2d(inputs, edges, groups=2, padding="same")
    model = convlet.Model(inputs, ops.concatenate([t, ops.tanh(t)], axis=-1))
    assert model.count_params() == 0
    x = floats(3, 6, 6, 2)
    y = ops.conv2d(x, edges, groups=2, padding="same")
    expected = np.concatenate([y, ops.tanh(y)], -1)
    np.testing.assert_array_equal(model.predict(x), expected)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.predict(x), expected)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


def test_several_inputs_and_outputs():
    class Gate(layers.Layer):
        def call(self, values, gates):
            return values * ops.sigmoid(gates), gates

    class Joined(layers.Layer):
        def call(self, inputs):
            a, b = inputs
            return ops.concatenate([a, b])

    a, b = convlet.Input((4,), name="a"), convlet.Input((4,), name="b")
    gated, gates = Gate()(a, gates=b)
    model = convlet.Model({"a": a, "b": b}, Joined()([gated, gates]))
    x = {"a": floats(5, 4), "b": floats(5, 4, seed=1)}
    expected = np.concatenate([x["a"] * ops.sigmoid(x["b"]), x["b"]], 1)
    np.testing.assert_array_equal(model.predict(x), expected)
    one, two = Gate()(x["a"], x["b"])
    np.testing.assert_array_equal(one, x["a"] * ops.sigmoid(x["b"]))
    np.testing.assert_array_equal(two, x["b"])

    class Two(convlet.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.Dense(2), layers.Dense(3)

        def call(self, inputs):
            return {"first": self.first(inputs["a"]), "second": self.second(inputs["b"])}

    model = Two()
    outputs = model.predict(x)
    assert {name: y.shape for name, y in outputs.items()} == {"first": (5, 2), "second": (5, 3)}
    model.compile("sgd", {"first": "mse", "second": "mse"})
    assert model.fit(x, {"first": floats(5, 2), "second": floats(5, 3)}, verbose=0).history["loss"]


def test_called_twice_a_layer_shares_its_weights():
    inputs = [convlet.Input((6, 6, 4)), convlet.Input((6, 6, 4))]
    block = Residual(4)
    model = convlet.Model(inputs, layers.Add()([block(t) for t in inputs]))
    x = [floats(2, 6, 6, 4), floats(2, 6, 6, 4, seed=9)]
    np.testing.assert_allclose(model.predict(x), block(x[0]) + block(x[1]), rtol=1e-6)
    assert model.count_params() == block.count_params()
    larger = convlet.Input((9, 9, 4))
    assert block(larger).shape == (None, 9, 9, 4)


def test_a_failed_call_leaves_the_layer_as_it_was():
    block = Residual(4)
    with pytest.raises(ValueError, match="Residual 'residual': call: add"):
        block(convlet.Input((6, 6, 3)))
    assert not block.steps[0].built
    assert block(convlet.Input((6, 6, 4))).shape == (None, 6, 6, 4)


def written(call, **methods):
    """A layer with this call()."""
    return type("Own", (layers.Layer,), {"call": call, **methods})()


X = (4, 6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda self, x: np.exp(x), TypeError, "Own 'own': call: .* which numpy.exp needs"),
        (lambda self, x: np.mean(x), TypeError, r"which numpy.mean needs: use .*convlet\.ops"),
        (lambda self, x: x if x else -x, TypeError, r"a branch \(if, .*ops.where"),
        (lambda self, x: [*x], TypeError, "which iteration needs"),
        (
            lambda self, x: x * len(x),
            TypeError,
            r"which len\(\) needs: .*; its sizes are in .shape",
        ),
        (lambda self, x: x * float(x), TypeError, r"which float\(\) needs"),
        (lambda self, x: None, ValueError, "call: result: expected symbolic tensors.*got None"),
        (lambda self, x: np.zeros(3), ValueError, "call: result: expected symbolic tensors"),
        (lambda self, x, training=None: x if training else x, TypeError, "training has no value"),
        (lambda self, x: layers.Dense(3)(x), ValueError, r"Dense 'dense' has weights, but is no"),
        (lambda self, x: ops.add(x, ops.reshape(x, (-1, 24))), ValueError, "equally many axes"),
        (lambda self, x: ops.concatenate([x, x], axis=0), ValueError, "other than 0, the batch"),
        (lambda self, x: ops.concatenate([x, x], axis=3), ValueError, r"axis in \[-3, 3\)"),
        (lambda self, x: ops.reshape(x, (24,)), ValueError, "newshape to begin with -1"),
        (lambda self, x: ops.reshape(x, (-1, 23)), ValueError, "newshape of 24 elements"),
        (lambda self, x: ops.squeeze(x, 1), ValueError, "squeeze: expected axis of size 1"),
        (lambda self, x: ops.stack([x, x]), ValueError, r"expand_dims: expected axis in \[1, 3\]"),
        (lambda self, x: ops.dense(x, x), TypeError, "dense: expected weight to be a weight or"),
        (lambda self, x: ops.relu(x, out=x), TypeError, "unexpected keyword argument 'out'"),
        (lambda self, x: ops.conv2d(x, np.zeros((3, 3, 1, 1))), ValueError, "conv2d expected"),
    ],
)
def test_errors_in_call(call, error, message):
    with pytest.raises(error, match=message) as caught:
        written(call)(convlet.Input(X))
    assert "Own 'own'" in str(caught.value)


def test_other_errors():
    class Late(layers.Layer):
        def __init__(self):
            self.units = 3

        def call(self, x):
            return x

    with pytest.raises(RuntimeError, match=r"Late: expected __init__ to call super\(\).__init__"):
        Late()(convlet.Input(X))
    foreign = layers.Dense(6)
    foreign(convlet.Input(X))
    with pytest.raises(ValueError, match="the weight 'kernel' belongs to none of its layers"):
        written(lambda self, x: ops.dense(x, foreign.weights[0]))(convlet.Input(X))
    with pytest.raises(ValueError, match=r"dense: the weight 'kernel' can be used in the call\(\)"):
        ops.dense(convlet.Input(X), foreign.weights[0])
    with pytest.raises(TypeError, match="Variable kernel.*which numpy.exp needs"):
        written(lambda self, x: x * np.exp(foreign.weights[0]))(convlet.Input(X))
    with pytest.raises(ValueError, match="add_weight: name: expected a name .* other than"):
        own = written(lambda self, x: x)
        own.add_weight("w", (3,))
        own.add_weight("w", (3,))
    with pytest.raises(ValueError, match="expected a constant of 1 to 65536 numbers"):
        ops.dense(convlet.Input((6,)), np.zeros((6, 20000), np.float32))
    captured = convlet.Input(X)
    with pytest.raises(ValueError, match="need the input 'input_layer"):
        written(lambda self, x: x + captured)(convlet.Input(X))
    with pytest.raises(TypeError, match="expected inputs and outputs, or a subclass that defines"):
        convlet.Model()
    with pytest.raises(ValueError, match=r"fit: x: expected arrays \(N, ...\)"):
        net = Net()
        net.compile("sgd", "mse")
        net.fit(np.zeros(3), np.zeros(3), verbose=0)


def test_a_layer_that_cannot_be_described_is_not_saved(tmp_path):
    class Bare(layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.inner = layers.Dense(units)

        def call(self, x):
            return self.inner(x)

    model = convlet.Sequential([layers.Input((3,)), Bare(4)])
    with pytest.raises(ValueError, match=r"Bare 'bare': get_config: .* got no \['units'\]; define"):
        model.save(tmp_path / "m.safetensors")

    class Odd(Bare):
        def get_config(self):
            return super().get_config() | {"units": np.zeros(3)}

    model = convlet.Sequential([layers.Input((3,)), Odd(4)])
    with pytest.raises(ValueError, match="get_config: expected numbers, texts, lists and dicts"):
        model.save(tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_keras_forms_of_add_weight_and_build():
    layer = layers.Layer(name="l")
    assert layer.add_weight((2, 3), "zeros").name == "weight"
    assert layer.add_weight(shape=(3,), initializer="ones").name == "weight_1"
    assert layer.add_weight("named", (1,)).shape == (1,)
    assert layer.add_weight(name="scalar").shape == ()
    dense = layers.Dense(4)
    dense.build((None, 5))
    assert dense.built
    assert dense(floats(2, 5)).shape == (2, 4)
    assert [w.shape for w in dense.weights] == [(5, 4), (4,)]
    with pytest.raises(ValueError, match="build: input_shape"):
        layers.Dense(4).build(5)


def test_the_ops_still_compute_on_arrays():
    x = floats(2, 3, 4)
    np.testing.assert_array_equal(ops.reshape(x, (2, 12)), x.reshape(2, 12))
    np.testing.assert_array_equal(ops.expand_dims(x, 1), x[:, None])
    np.testing.assert_array_equal(ops.squeeze(x[:, :1]), x[:, 0])
    np.testing.assert_array_equal(ops.concatenate([x, x]), np.concatenate([x, x], -1))
    assert ops.stack([torch.from_numpy(x)] * 2).shape == torch.Size((2, 2, 3, 4))
    with pytest.raises(ValueError, match=r"reshape: .* for shapes \(2, 3, 4\): cannot"):
        ops.reshape(x, (5, 5))
    with pytest.raises(TypeError, match="concatenate: expected a list of arrays"):
        ops.concatenate(3)
    with pytest.raises(TypeError, match=r"stack: expected xs\[0\] to be a float32 array, got str"):
        ops.stack(["a"])
