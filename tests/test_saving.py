"""Files of models: what comes back is what was saved, bit for bit; what is damaged is refused."""

import json
import os

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import convlet
from convlet import Input, Model, Sequential, layers, losses, metrics, optimizers
from reference import floats


def data(n=40):
    x = floats(n, 6, 6, 2)
    return x, (x[:, :3].sum((1, 2, 3)) > x[:, 3:].sum((1, 2, 3))).astype(np.int64)


def cnn():
    return Sequential(
        [
            Input((6, 6, 2), name="image"),
            layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2"),
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ]
    )


def assert_same_weights(a, b):
    for left, right in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


OPTIMIZERS = [
    optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    optimizers.RMSprop(centered=True, momentum=0.5),
    optimizers.Adam(optimizers.schedules.CosineDecay(0.01, 50, warmup_target=0.02, warmup_steps=5)),
    optimizers.AdamW(clipnorm=0.5),
    optimizers.Adam(
        optimizers.schedules.PiecewiseConstantDecay([3, 6], [0.1, 0.01, 0.001]), global_clipnorm=1.0
    ),
    optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 5, 0.9, staircase=True)),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
def test_training_goes_on_exactly(tmp_path, optimizer):
    x, y = data()
    model = cnn()
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    options = {"batch_size": 8, "verbose": 0, "validation_split": 0.2}
    model.fit(x, y, epochs=2, **options)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert_same_weights(model, loaded)
    np.testing.assert_array_equal(model.predict(x), loaded.predict(x))
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert loaded.optimizer.iterations == model.optimizer.iterations == 8
    first = model.fit(x, y, epochs=4, initial_epoch=2, **options).history
    second = loaded.fit(x, y, epochs=4, initial_epoch=2, **options).history
    assert first == second
    assert_same_weights(model, loaded)


def test_a_changed_learning_rate_is_saved(tmp_path):
    model = cnn()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.learning_rate = 0.0123
    model.save(tmp_path / "m.safetensors")
    assert convlet.load_model(tmp_path / "m.safetensors").optimizer.learning_rate == 0.0123


def test_a_dag_with_shared_layers_and_a_model_inside(tmp_path):
    inner = Sequential([layers.Dense(5, input_shape=(4,)), layers.ReLU()], name="inner")
    a, b = Input((4,), name="a"), Input((4,), name="b")
    shared = layers.Dense(5, activation="tanh", name="shared")
    joined = layers.Concatenate()([inner(a), inner(b), shared(a), shared(b)])
    twice = layers.Add()([inner.layers[0](b), shared(b)])
    model = Model({"a": a, "b": b}, {"p": layers.Dense(3)(joined), "q": twice}, name="two")
    model.compile("sgd", {"p": "mse", "q": "mse"}, {"p": 0.5}, {"q": [metrics.MeanAbsoluteError()]})
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert loaded.name == "two"
    assert loaded.output_names == ["p", "q"]
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    assert loaded.count_params() == model.count_params()
    xs = {"a": floats(7, 4), "b": floats(7, 4, seed=1)}
    for key, value in model.predict(xs).items():
        np.testing.assert_array_equal(loaded.predict(xs)[key], value)
    ys = {"p": floats(7, 3), "q": floats(7, 5)}
    for m in (model, loaded):
        m.fit(xs, ys, epochs=2, verbose=0)
    assert_same_weights(model, loaded)
    assert loaded.evaluate(xs, ys, verbose=0) == model.evaluate(xs, ys, verbose=0)
    # Shared before, shared after.
    assert loaded.get_layer("inner").layers[0] in loaded.layers


def test_frozen_layers_come_back_frozen(tmp_path):
    x, y = data()
    model = cnn()
    model.layers[0].trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert [layer.trainable for layer in loaded.layers] == [False, True, True, True, True]
    for m in (model, loaded):
        m.fit(x, y, verbose=0)
    assert_same_weights(model, loaded)


def test_every_loss_and_metric_comes_back(tmp_path):
    x = floats(6, 3)
    one_hot = np.eye(3)[np.arange(6) % 3]
    sparse = np.arange(6) % 3
    for loss, y, watched in [
        (losses.SparseCategoricalCrossentropy(True, ignore_class=1), sparse, ["accuracy"]),
        (losses.CategoricalCrossentropy(True, 0.1), one_hot, ["accuracy", metrics.Recall()]),
        (losses.BinaryCrossentropy(True, 0.1), one_hot, [metrics.F1Score("micro", 0.5), "acc"]),
        (losses.MeanSquaredError(), one_hot, ["mae", metrics.BinaryAccuracy(threshold=0.2)]),
    ]:
        model = Sequential([layers.Dense(3, input_shape=(3,))])
        model.compile("sgd", loss, metrics=watched)
        model.save(tmp_path / "m.safetensors")
        loaded = convlet.load_model(tmp_path / "m.safetensors")
        expected = model.evaluate(x, y, verbose=0, return_dict=True)
        assert loaded.evaluate(x, y, verbose=0, return_dict=True) == expected


def test_what_travels_with_the_model(tmp_path):
    model = cnn()
    model.class_names = ["ä b", "c"]
    model.preprocessing = convlet.data.Preprocessing((6, 6), "rgb", "pad", 1 / 255)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert loaded.class_names == ["ä b", "c"]
    assert loaded.preprocessing == model.preprocessing
    assert not loaded.compiled
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.save(tmp_path / "m.safetensors")
    assert not convlet.load_model(tmp_path / "m.safetensors", compile=False).compiled


def test_numbers_that_are_not_finite_are_saved(tmp_path):
    model = Sequential([layers.Dense(2, input_shape=(2,))])
    model.set_weights([[[np.nan, np.inf], [-np.inf, -0.0]], [1e-45, 3e38]])
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_what_a_file_cannot_hold_is_said(tmp_path):
    x, y = data(8)
    model = cnn()
    own = metrics.get(lambda t, p: np.zeros(len(p)))
    model.compile(
        optimizers.SGD(lambda step: 0.5),
        "sparse_categorical_crossentropy",
        metrics=["accuracy", own],
    )
    model.fit(x, y, verbose=0)
    with pytest.warns(UserWarning) as said:
        model.save(tmp_path / "m.safetensors")
    messages = " ".join(str(warning.message) for warning in said)
    assert "the metric '<lambda>' is not convlet's and is left out" in messages
    assert "the learning rate follows a function" in messages
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert loaded.optimizer.learning_rate == 0.5
    assert list(loaded.evaluate(x, y, verbose=0, return_dict=True)) == ["loss", "accuracy"]

    class Mine(layers.Flatten):
        pass

    Sequential([Mine(input_shape=(2, 2))]).save(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match="'mine' is of the class 'Mine', which is not convlet's"):
        convlet.load_model(tmp_path / "own.safetensors")
    own = convlet.load_model(tmp_path / "own.safetensors", {"Mine": Mine})
    assert type(own.layers[0]) is Mine
    with pytest.raises(ValueError, match="expected a built model"):
        Sequential([layers.Dense(2)]).save(tmp_path / "x.safetensors")
    with pytest.raises(
        ValueError, match=r"save: path: expected a path that ends in '.safetensors'"
    ):
        model.save(tmp_path / "m.keras")
    with pytest.raises(FileNotFoundError, match=r"no/m\.safetensors: there is no folder .*no$"):
        cnn().save(tmp_path / "no" / "m.safetensors")
    names = ["m.safetensors", "own.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_weights_alone(tmp_path):
    a, b = cnn(), cnn()
    path = tmp_path / "w.safetensors"
    a.save_weights(path)
    b.load_weights(path)
    assert_same_weights(a, b)
    a.save(tmp_path / "m.safetensors")
    cnn().load_weights(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"load_model: .*expected a model, got weights only"):
        convlet.load_model(path)
    other = Sequential([layers.Dense(2, input_shape=(3,))])
    before = other.get_weights()
    with pytest.raises(
        ValueError, match=r"load_weights: .*weights: expected 2 tensors, got 6; missing"
    ):
        other.load_weights(path)
    wider = cnn()
    wider.pop()
    wider.add(layers.Dense(3, name="dense"))
    with pytest.raises(
        ValueError, match=r"dense/kernel: expected shape \(128, 3\), got \(128, 2\)"
    ):
        wider.load_weights(path)
    np.testing.assert_array_equal(other.get_weights()[0], before[0])


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    model = cnn()
    model.save(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    model.set_weights([w + 1 for w in model.get_weights()])
    with pytest.raises(OSError, match="no space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def rewrite(path, tensors=lambda t: t, content=lambda c: c, metadata=lambda m: m):
    """Writes the file again with parts of it changed."""
    with safe_open(str(path), framework="numpy") as file:
        old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = json.loads(file.metadata()["convlet"])
    text = json.dumps(content(description))
    save_file(tensors(old), str(path), metadata({"convlet": text}))


def drop(mapping, key):
    return {k: v for k, v in mapping.items() if k != key}


def with_layer(content, number, **change):
    content["architecture"]["layers"][number] |= change
    return content


DAMAGE = [
    ({"metadata": lambda m: None}, "expected a file that convlet saved"),
    ({"metadata": lambda m: {"format": "pt"}}, "expected a file that convlet saved"),
    ({"metadata": lambda m: {"convlet": "{"}}, "the description in the file is damaged"),
    ({"metadata": lambda m: {"convlet": "[]"}}, "the description in the file is damaged"),
    (
        {"content": lambda c: c | {"format": 99, "convlet_version": "9.0"}},
        "format 99.*9.0.*upgrade",
    ),
    ({"content": lambda c: c | {"format": "1"}}, "expected format 1"),
    ({"content": lambda c: c | {"kind": "pickle"}}, "expected a model or weights, got 'pickle'"),
    ({"content": lambda c: drop(c, "architecture")}, "damaged"),
    ({"content": lambda c: with_layer(c, 0, **{"class": "Lambda"})}, "got 'Lambda'"),
    ({"content": lambda c: with_layer(c, 0, **{"class": "os.system"})}, "got 'os.system'"),
    ({"content": lambda c: with_layer(c, 0, config={"filters": -1, "kernel_size": 3})}, "filters"),
    ({"content": lambda c: with_layer(c, 0, config={"filters": 4})}, "architecture is damaged"),
    ({"content": lambda c: with_layer(c, 0, config=7)}, "architecture is damaged"),
    ({"content": lambda c: with_layer(c, 0, shared=0)}, "contains itself"),
    ({"content": lambda c: with_layer(c, 0, shared=1000)}, "architecture is damaged"),
    ({"content": lambda c: c | {"architecture": {"shared": 0}}}, "architecture is damaged"),
    ({"content": lambda c: c | {"class_names": ["a"]}}, "class_names: expected"),
    ({"content": lambda c: c | {"preprocessing": {"size": 3}}}, "Preprocessing"),
    ({"content": lambda c: c | {"seed": None}}, "damaged"),
    ({"content": lambda c: c | {"training": c["training"] | {"batches": -1}}}, "batches"),
    ({"content": lambda c: c | {"training": drop(c["training"], "loss")}}, "damaged"),
    ({"content": lambda c: c | {"training": c["training"] | {"optimizer": "lion"}}}, "optimizer"),
    ({"tensors": lambda t: drop(t, "weights/dense/bias")}, "missing .'dense/bias'"),
    ({"tensors": lambda t: t | {"weights/x": np.zeros(3, np.float32)}}, "unexpected .'x'"),
    (
        {"tensors": lambda t: t | {"weights/dense/bias": np.zeros(3, np.float32)}},
        r"dense/bias: expected shape \(2,\), got \(3,\)",
    ),
    (
        {"tensors": lambda t: t | {"weights/dense/bias": np.zeros(2)}},
        r"weights/dense/bias: expected float32 \(F32\), got F64",
    ),
    (
        {"tensors": lambda t: {k: v for k, v in t.items() if "optimizer" not in k}},
        "optimizer: expected 12 tensors, got 0",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damage_is_refused_with_the_path(tmp_path, damage, message):
    path = tmp_path / "m.safetensors"
    model = cnn()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(path)
    rewrite(path)
    convlet.load_model(path)  # the rewriting itself does no harm
    rewrite(path, **damage)
    with pytest.raises(ValueError, match=message) as error:
        convlet.load_model(path)
    assert str(error.value).startswith(f"load_model: {path}: ")


def test_files_that_are_none(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match=r"load_model: .*m.safetensors: no such file"):
        convlet.load_model(path)
    cnn().save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"PK\x03\x04" * 9, whole[:100], whole[:-1], whole + b"x", os.urandom(999)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged, cut short or of another kind"):
            convlet.load_model(path)


@pytest.mark.parametrize("frozen_at_first", [False, True])
def test_a_change_of_trainable_after_compile_can_be_saved(tmp_path, frozen_at_first):
    first, second = layers.Dense(5, activation="relu"), layers.Dense(3, activation="softmax")
    model = Sequential([Input((4,)), first, second])
    first.trainable = not frozen_at_first
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = floats(20, 4), np.arange(20) % 3
    model.fit(x, y, verbose=0)
    first.trainable = frozen_at_first  # takes effect at the next compile, and loading compiles
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    before = loaded.layers[0].get_weights()
    loaded.fit(x, y, verbose=0)
    after = loaded.layers[0].get_weights()
    moved = any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert moved == frozen_at_first
