"""Models: how they are put together, named, summed up and run; not how they learn."""

import gc
import re
import threading
import weakref

import numpy as np
import pytest

import convlet
from convlet import Input, Model, Sequential, layers
from convlet.callbacks import Callback
from reference import floats


def small_cnn(**options):
    return Sequential(
        [
            layers.Conv2D(4, 3, activation="relu", input_shape=(8, 8, 1)),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ],
        **options,
    )


def test_sequential_has_keras_names_shapes_and_counts():
    model = Sequential(
        [Input((32, 32, 3))]
        + [layer for _ in range(2) for layer in (layers.Conv2D(4, 3), layers.MaxPooling2D())]
        + [layers.ReLU(), layers.Flatten(), layers.Dense(5), layers.Dense(2, name="head")]
    )
    assert [layer.name for layer in model.layers] == [
        *("conv2d", "max_pooling2d", "conv2d_1", "max_pooling2d_1"),
        *("re_lu", "flatten", "dense", "head"),
    ]
    assert model.name == "sequential"
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 2)
    assert model.count_params() == 112 + 148 + (6 * 6 * 4 * 5 + 5) + 12
    assert [w.shape for w in model.get_weights()][:2] == [(3, 3, 3, 4), (4,)]
    assert model.get_layer("head") is model.get_layer(index=-1) is model.layers[-1]
    with pytest.raises(ValueError, match="get_layer: name: expected one of .*'conv2d_1'"):
        model.get_layer("conv")
    with pytest.raises(ValueError, match="get_layer: index"):
        model.get_layer(index=9)


def test_names_are_unique_in_a_model():
    with pytest.raises(ValueError, match="expected layers with different names, got two named 'a'"):
        Sequential([layers.Flatten(name="a"), layers.Flatten(name="a")])
    model = Sequential([layers.Dense(1, name="dense"), layers.Dense(1)])
    assert [layer.name for layer in model.layers] == ["dense", "dense_1"]
    # Models that are joined: a name that was made automatically gives way.
    a, b = Input((3,)), Input((3,))
    first = Model(a, layers.Dense(2)(a))
    second = Model(b, layers.Dense(2)(b))
    both = Model([a, b], layers.Add()([first.output, second.output]))
    assert sorted(layer.name for layer in both.layers if "dense" in layer.name) == [
        "dense",
        "dense_1",
    ]


def test_sequential_is_built_by_data():
    x = floats(4, 8, 8)
    model = Sequential([layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)])
    assert not model.built
    assert model.weights == []
    assert model.predict(x).shape == (4, 2)  # (N,H,W) is one channel
    assert model.input_shape == (None, 8, 8, 1)
    with pytest.raises(ValueError, match=r"predict: x: expected \(N,8,8,1\) or \(N,8,8\), got"):
        model.predict(floats(4, 9, 9))
    other = Sequential([layers.Dense(2)])
    other.build((None, 7))
    assert other.count_params() == 16
    with pytest.raises(ValueError, match="Sequential 'sequential' has no layers"):
        Sequential().predict(x)


def test_add_and_pop():
    model = Sequential()
    model.add(Input((6,)))
    model.add(layers.Dense(4))
    model.add(layers.Dense(3))
    assert model.output_shape == (None, 3)
    before = model.layers[0].get_weights()[0]
    assert model.pop().name == "dense_1"
    assert model.output_shape == (None, 4)
    assert model.predict(floats(2, 6)).shape == (2, 4)
    with pytest.raises(ValueError, match="Conv2D"):
        model.add(layers.Conv2D(1, 3))
    assert len(model.layers) == 1
    model.add(layers.Dense(5))
    assert model.predict(floats(2, 6)).shape == (2, 5)
    np.testing.assert_array_equal(model.layers[0].get_weights()[0], before)
    model.pop()
    model.pop()
    assert model.layers == []
    with pytest.raises(ValueError, match="pop: expected at least one layer"):
        model.pop()
    with pytest.raises(ValueError, match="layers: expected the Input first"):
        Sequential([layers.Dense(1), Input((3,))])
    with pytest.raises(ValueError, match="layers: expected layers, got 5"):
        Sequential([5])
    shared = layers.Dense(3)
    with pytest.raises(ValueError, match="expected each layer once"):
        Sequential([shared, shared])


def test_functional_dag_with_a_shared_layer():
    x, z = Input((6,), name="x"), Input((6,), name="z")
    shared = layers.Dense(5, activation="tanh", name="shared")
    a, b = shared(x), shared(z)
    merged = layers.Concatenate(name="join")([a, b, layers.Multiply()([a, b])])
    model = Model([x, z], [layers.Dense(2, name="p")(merged), layers.Add(name="q")([a, b])])
    assert [layer.name for layer in model.layers].count("shared") == 1
    assert model.output_names == ["p", "q"]
    assert model.count_params() == 6 * 5 + 5 + 15 * 2 + 2
    u, v = floats(7, 6), floats(7, 6, seed=1)
    kernel, bias, head, head_bias = model.get_weights()
    ya, yb = np.tanh(u @ kernel + bias), np.tanh(v @ kernel + bias)
    p, q = model.predict([u, v])
    np.testing.assert_allclose(
        p, np.concatenate([ya, yb, ya * yb], 1) @ head + head_bias, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(q, ya + yb, rtol=1e-4, atol=1e-5)
    for given in ({"z": v, "x": u}, (u, v)):
        np.testing.assert_array_equal(model.predict(given)[0], p)
    with pytest.raises(AttributeError, match="output: the layer was called 2 times"):
        _ = shared.output
    with pytest.raises(ValueError, match=r"predict: x: expected the names \['x', 'z'\]"):
        model.predict({"x": u, "y": v})
    with pytest.raises(ValueError, match="predict: x: expected a list of 2 arrays"):
        model.predict(u)
    with pytest.raises(ValueError, match="predict: x: expected inputs of one length"):
        model.predict([u, v[:3]])


def test_layers_are_ordered_as_in_keras():
    # By depth from the outputs; a short branch comes late, beside the layers of its depth.
    x = Input((4,), name="x")
    long = layers.Dense(4, name="long_2")(layers.Dense(4, name="long_1")(x))
    short = layers.Dense(4, name="short")(x)
    model = Model(x, layers.Add(name="sum")([long, short]))
    assert [layer.name for layer in model.layers] == ["x", "long_1", "long_2", "short", "sum"]


def test_dict_outputs_and_inputs():
    x = Input((4,), name="x")
    model = Model({"x": x}, {"a": layers.Dense(2)(x), "b": layers.Dense(3)(x)})
    result = model.predict({"x": floats(5, 4)})
    assert {key: value.shape for key, value in result.items()} == {"a": (5, 2), "b": (5, 3)}


def test_disconnected_graphs_are_refused():
    x, y = Input((4,), name="x"), Input((4,), name="y")
    out = layers.Add()([x, y])
    with pytest.raises(ValueError, match="they need the input 'y'"):
        Model(x, out)
    z = Input((4,), name="z")
    with pytest.raises(ValueError, match="no output of the model depends on 'z'"):
        Model([x, y, z], out)
    with pytest.raises(ValueError, match="outputs: expected symbolic tensors"):
        Model(x, np.zeros(3))
    with pytest.raises(ValueError, match=r"inputs: expected what convlet\.Input gave"):
        Model(layers.Dense(2)(x), layers.Dense(2)(x))
    with pytest.raises(TypeError, match="expected inputs and outputs, or a subclass"):
        Model()
    with pytest.raises(TypeError, match="describes a model and has no values"):
        np.asarray(x)


def test_deep_models_do_not_meet_the_recursion_limit():
    x = value = Input((2,))
    for _ in range(1500):
        value = layers.ReLU()(value)
    assert Model(x, value).predict(np.ones((1, 2))).tolist() == [[1, 1]]


def test_a_model_is_a_layer():
    base = Sequential([layers.Dense(4, input_shape=(3,)), layers.ReLU()], name="base")
    x = Input((3,))
    model = Model(x, layers.Dense(2)(base(x)))
    chain = Sequential([base, layers.Dense(2)])
    assert [layer.name for layer in model.layers] == ["input_layer", "base", "dense"]
    assert model.count_params() == chain.count_params() == 16 + 10
    chain.set_weights(model.get_weights())
    u = floats(5, 3)
    np.testing.assert_array_equal(model.predict(u), chain.predict(u))
    np.testing.assert_allclose(
        model.predict(u),
        base.predict(u) @ model.get_weights()[2] + model.get_weights()[3],
        rtol=1e-5,
        atol=1e-6,
    )
    with pytest.raises(ValueError, match=r"inputs: expected shape \(None, 3\)"):
        base(Input((5,)))


def test_a_dropped_model_is_freed_at_once():
    x, y = floats(6, 8, 8, 1), np.arange(6) % 3
    model = small_cnn()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, validation_data=(x, y), verbose=0)
    model.predict(x)
    kernel = weakref.ref(model.weights[0])
    gc.collect()
    gc.disable()
    try:
        del model
        assert kernel() is None  # no cycle keeps the weights' memory
    finally:
        gc.enable()
    assert len(history.history["loss"]) == 1


def test_models_that_share_layers_share_weights():
    model = small_cnn()
    features = Model(model.inputs, model.get_layer("flatten").output)
    x = floats(6, 8, 8, 1)
    before = features.predict(x)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.train_on_batch(x, np.arange(6) % 3)
    after = features.predict(x)
    assert (before != after).any()
    # ... and the other way round, with a fresh model from the same weights as the judge.
    kernel, bias = features.get_layer("conv2d").get_weights()
    features.get_layer("conv2d").set_weights([kernel * 2, bias * 2])
    np.testing.assert_allclose(features.predict(x), 2 * after, rtol=1e-5)
    judge = small_cnn()
    judge.set_weights(model.get_weights())
    np.testing.assert_array_equal(judge.predict(x), model.predict(x))


def test_get_and_set_weights():
    a, b = small_cnn(), small_cnn()
    x = floats(5, 8, 8, 1)
    assert (a.predict(x) != b.predict(x)).any()
    b.set_weights(a.get_weights())
    np.testing.assert_array_equal(a.predict(x), b.predict(x))
    weights = a.get_weights()
    with pytest.raises(ValueError, match="set_weights: expected 4 arrays, got 3"):
        b.set_weights(weights[:3])
    with pytest.raises(ValueError, match="set_weights: kernel: expected shape"):
        b.set_weights([weights[0] * 2, weights[1], weights[2].T, weights[3]])
    np.testing.assert_array_equal(a.predict(x), b.predict(x))


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 100])
def test_predict_any_number_of_samples(count):
    model = small_cnn()
    x = floats(100, 8, 8, 1)
    whole = model.predict(x, batch_size=100)
    assert whole.dtype == np.float32
    for got in (
        model.predict(x[:count]),
        model.predict(x[:count], batch_size=7),
        model.predict_on_batch(x[:count]),
        model(x[:count]),
    ):
        assert got.dtype == np.float32
        # A sum may be taken in another order for another size of batch.
        np.testing.assert_allclose(got, whole[:count], rtol=1e-5, atol=1e-6)


def test_predict_takes_many_kinds_of_data():
    model = small_cnn()
    x = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1))
    expected = model.predict(x.astype(np.float32))
    for dtype in (np.uint8, np.int16, np.int32, np.int64, np.uint16, np.float16, np.float64, ">f4"):
        np.testing.assert_array_equal(model.predict(x.astype(dtype)), expected)
    np.testing.assert_array_equal(model.predict(x[..., 0].tolist()), expected)
    np.testing.assert_array_equal(model.predict([x]), expected)
    np.testing.assert_array_equal(model.predict(x[::-1])[::-1], expected)
    in_parts = model.predict(x[i : i + 4] for i in (0, 4, 8))
    np.testing.assert_allclose(in_parts, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match="predict: x: expected an array of numbers, got dtype"):
        model.predict(np.array([["a"]]))

    class ByIndex:  # without an end: numpy's slices beyond it are empty
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return x[4 * i : 4 * i + 4]

    np.testing.assert_array_equal(model.predict(ByIndex()), in_parts)
    with pytest.raises(TypeError, match="predict: x: expected arrays or an iterable .* NoneType"):
        model.predict(None)
    with pytest.raises(ValueError, match=r"predict: x: expected \(N,8,8,1\)"):
        model.predict(x[0])
    with pytest.raises(ValueError, match="batch_size: expected an integer >= 1, got 0"):
        model.predict(x, batch_size=0)
    with pytest.raises(ValueError, match="training: expected None"):
        model(x, training=True)


def test_predict_shows_its_progress(capsys):
    model = small_cnn()
    x = floats(10, 8, 8, 1)
    model.predict(x, batch_size=3)
    assert capsys.readouterr().out == ""
    model.predict(x, batch_size=3, verbose=2)
    assert re.fullmatch(r"Prediction: \S+ ?\w+, \d+ images/s\n", capsys.readouterr().out)
    model.predict((x[i : i + 2] for i in (0, 2)), verbose=1)
    bar, line = capsys.readouterr().out.rsplit("\r", 1)
    assert "batches/s" in bar
    assert line.startswith("Prediction: ")
    with pytest.raises(ValueError, match="predict: verbose: expected 'auto', 0, 1 or 2, got 3"):
        model.predict(x, verbose=3)


def test_predict_calls_back_for_each_batch():
    model = small_cnn()
    x = floats(10, 8, 8, 1)
    calls = []

    class Record(Callback):
        def on_predict_begin(self, logs=None):
            calls.append(("steps", self.params["steps"]))

        def on_predict_batch_begin(self, batch, logs=None):
            calls.append(("begin", batch))

        def on_predict_batch_end(self, batch, logs=None):
            calls.append(("end", batch, len(logs["outputs"][0])))

        def on_predict_end(self, logs=None):
            calls.append("end")

    np.testing.assert_array_equal(
        model.predict(x, batch_size=4, callbacks=[Record()]), model.predict(x, batch_size=4)
    )
    pairs = [("begin", 0), ("end", 0, 4), ("begin", 1), ("end", 1, 4), ("begin", 2), ("end", 2, 2)]
    assert calls == [("steps", 3), *pairs, "end"]
    calls.clear()
    model.predict([x[:2], x[2:5]].__iter__(), callbacks=Record())
    pairs = [("begin", 0), ("end", 0, 2), ("begin", 1), ("end", 1, 3)]
    assert calls == [("steps", None), *pairs, "end"]


def test_predict_takes_the_steps_it_is_told():
    model = small_cnn()
    x = floats(10, 8, 8, 1)
    whole = model.predict(x, batch_size=4)
    np.testing.assert_array_equal(model.predict(x, batch_size=4, steps=2), whole[:8])
    batches = [x[:4], x[4:8], x[8:]]
    np.testing.assert_array_equal(model.predict(iter(batches), steps=2), whole[:8])
    with pytest.raises(ValueError, match="steps: expected at most 3 steps of 4 from 10 samples"):
        model.predict(x, batch_size=4, steps=4)
    with pytest.raises(ValueError, match="predict: x: expected 4 batches, got 3"):
        model.predict(iter(batches), steps=4)
    with pytest.raises(ValueError, match="predict: x: expected at least one batch, got none"):
        model.predict(iter([]))
    with pytest.raises(ValueError, match="predict: steps: expected an integer >= 1, got 0"):
        model.predict(x, steps=0)


def test_unsigned_integers_beyond_int64_stay_positive():
    model = Sequential([layers.ReLU(input_shape=(2,))])
    x = np.array([[2**63, 2**64 - 2**40]], np.uint64)
    np.testing.assert_array_equal(model.predict(x), x.astype(np.float32))


def test_nan_passes_through_predict():
    model = Sequential([layers.ReLU(input_shape=(3,))])
    got = model.predict(np.array([[np.nan, np.inf, -np.inf]]))
    np.testing.assert_array_equal(got, [[np.nan, np.inf, 0]])


def test_predict_from_several_threads():
    model = small_cnn()
    data = [floats(n, 8, 8, 1, seed=n) for n in (1, 5, 64, 33)]
    expected = [model.predict(x) for x in data]
    wrong = []

    def work(i):
        for _ in range(20):
            if not np.array_equal(model.predict(data[i]), expected[i]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(data))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_summary_of_a_chain(capsys):
    model = small_cnn()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.summary()
    text = capsys.readouterr().out
    assert re.search(r"^conv2d \(Conv2D\) +\(None, 6, 6, 4\) +40 +<0.01$", text, re.M)
    assert re.search(r"^dense \(Dense\) +\(None, 3\) +111 +<0.01$", text, re.M)
    assert "Parameters: 151 (0.00 MB); trainable 151, not trainable 0" in text
    assert "Memory at batch size 32: training " in text
    assert "Connected to" not in text


def test_summary_counts_memory():
    model = Sequential([layers.Dense(1000, input_shape=(1000,)), layers.Dense(10)])
    lines = []
    model.summary(batch_size=500, print_fn=lines.append)
    assert "training" not in lines[0]
    inference = float(lines[0].rsplit("inference ", 1)[1].split(" MB")[0])
    # Weights, the input and the widest activation; not much more.
    least = 4 * (1_011_010 + 500 * 2000) / 1e6
    assert least <= inference < 2 * least
    model.compile("adam", "mse")
    model.summary(batch_size=500, print_fn=lines.append)
    training = float(lines[1].split("training ")[1].split(" MB")[0])
    assert training > inference + 4 * 3 * 1_011_010 / 1e6  # gradients and two momenta


def test_summary_of_a_dag_and_of_an_unbuilt_model(capsys):
    x = Input((4,), name="x")
    y = layers.Dense(4, name="d")(x)
    Model(x, layers.Add(name="sum")([x, y])).summary()
    text = capsys.readouterr().out
    assert "Connected to" in text
    assert "x, d" in text
    Sequential([layers.Dense(3)]).summary()
    text = capsys.readouterr().out
    assert "not built" in text
    assert "the shape of the input is not known" in text


def test_class_names_and_classify():
    model = Sequential([layers.Softmax(input_shape=(3,))])
    with pytest.raises(ValueError, match="has no class names"):
        model.classify(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="class_names: expected 3 names"):
        model.class_names = ["a", "b"]
    with pytest.raises(ValueError, match="class_names: expected different strings"):
        model.class_names = ["a", "b", "b"]
    model.class_names = ["a", "b", "c"]
    best, other = model.classify(np.log([[1, 7, 2], [6, 3, 1]]))
    assert best.name == "b"
    assert best.confidence == pytest.approx(0.7)
    assert [name for name, _ in best.top5] == ["b", "c", "a"]
    assert other.name == "a"
    assert model.classify(np.zeros((0, 3))) == []
    assert len(model.classify(np.zeros(3))) == 1
    with pytest.raises(ValueError, match="has no preprocessing, so it cannot read files"):
        model.classify("cat.png")


def test_classify_reads_files_through_the_preprocessing(tmp_path):
    from PIL import Image

    model = Sequential([layers.GlobalAveragePooling2D(input_shape=(4, 4, 3)), layers.Softmax()])
    model.class_names = ["red", "green", "blue"]
    model.preprocessing = convlet.data.Preprocessing((4, 4), scale=1 / 255)
    pixels = np.zeros((10, 12, 3), np.uint8)
    pixels[..., 1] = 255
    Image.fromarray(pixels).save(tmp_path / "g.png")
    for images in (tmp_path / "g.png", [str(tmp_path / "g.png")], pixels, pixels[None]):
        (prediction,) = model.classify(images)
        assert prediction.name == "green"
        assert prediction.confidence == pytest.approx(np.e / (np.e + 2), rel=1e-5)


def test_classify_of_one_sigmoid_and_of_logits():
    x = np.log([[3.0], [1 / 3]])
    one = Sequential([layers.Activation("sigmoid", input_shape=(1,))])
    one.class_names = ["no", "yes"]
    assert [p.name for p in one.classify(x)] == ["yes", "no"]
    assert [p.confidence for p in one.classify(x)] == pytest.approx([0.75, 0.75])
    logits = Sequential([layers.Flatten(input_shape=(3,))])
    logits.class_names = ["a", "b", "c"]
    with pytest.raises(ValueError, match="expected a model that ends in softmax"):
        logits.classify(np.zeros((1, 3)))
    loss = convlet.losses.SparseCategoricalCrossentropy(from_logits=True)
    logits.compile("sgd", loss)
    (prediction,) = logits.classify(np.log([[1, 7, 2]]))
    assert prediction.confidence == pytest.approx(0.7)


def test_trainable_of_a_model_reaches_its_layers():
    base = small_cnn()
    base.trainable = False
    assert [layer.trainable for layer in base.layers] == [False] * 4
    assert base.trainable_weights == []
    assert len(base.non_trainable_weights) == 4
