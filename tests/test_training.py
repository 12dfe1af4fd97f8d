"""What fit does with batches, weights, seeds and splits, and that it repeats bit for bit."""

import itertools
import os
import signal
import threading

import numpy as np
import pytest
import torch

import convlet
from classifiers import cnn, images
from convlet import Input, Model, NonFiniteError, Sequential, _core, layers, losses, optimizers
from reference import floats

torch.set_num_threads(1)  # torch's spinning threads would get in the way of convlet's


def test_the_epoch_loss_weighs_batches_by_their_size():
    x, y = images(21)
    model = cnn()
    model.compile(optimizers.SGD(0.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
    outputs = model.predict(x)
    loss = losses.SparseCategoricalCrossentropy()(y, outputs)
    accuracy = (outputs.argmax(1) == y).mean()
    history = model.fit(x, y, batch_size=8, verbose=0).history  # 8, 8, 5
    assert history["loss"] == pytest.approx([loss], rel=1e-6)
    assert history["accuracy"] == pytest.approx([accuracy])
    for size in (1, 4, 21, 99):
        assert model.evaluate(x, y, size, verbose=0) == pytest.approx([loss, accuracy], rel=1e-6)


def test_the_last_partial_batch_trains_as_a_batch_of_its_own():
    x, y = images(11)
    a, b = cnn(), cnn()
    b.set_weights(a.get_weights())
    for model in (a, b):
        model.compile(optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    a.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    b.train_on_batch(x[:8], y[:8])
    b.train_on_batch(x[8:], y[8:])
    for left, right in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_plan_for_larger_batches_gives_the_same_bits():
    x, y = images(40)
    a, b = cnn(), cnn()
    b.set_weights(a.get_weights())
    for model in (a, b):
        model.compile(optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    b.train_on_batch(x, y)  # its plan is for 40 samples now
    for model in (a, b):
        model.optimizer.learning_rate = 0.1
        model.train_on_batch(x[:7], y[:7])
    for left, right in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_class_and_sample_weights_follow_the_formula():
    x, y = images(10)
    model = cnn()
    model.compile(optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    rows = -np.log(model.predict(x)[np.arange(10), y].astype(np.float64))
    sample = np.linspace(0, 3, 10)
    by_class = {0: 2.0, 2: 0.25}
    table = np.array([2.0, 1.0, 0.25])[y]
    expected = {
        "sample_weight": (rows * sample).sum() / 10,
        "class_weight": (rows * table).sum() / 10,
        "both": (rows * table * sample).sum() / 10,
    }
    for name, options in {
        "sample_weight": {"sample_weight": sample},
        "class_weight": {"class_weight": by_class},
        "both": {"sample_weight": sample[:, None], "class_weight": by_class},
    }.items():
        history = model.fit(x, y, batch_size=4, verbose=0, **options).history
        assert history["loss"] == pytest.approx([expected[name]], rel=1e-5), name
    assert model.evaluate(x, y, verbose=0, sample_weight=sample) == pytest.approx(
        expected["sample_weight"], rel=1e-5
    )
    one_hot = cnn()
    one_hot.set_weights(model.get_weights())
    one_hot.compile(optimizers.SGD(0.0), "categorical_crossentropy")
    targets = convlet.utils.to_categorical(y, 3)
    got = one_hot.fit(x, targets, verbose=0, class_weight=by_class).history["loss"]
    assert got == pytest.approx([expected["class_weight"]], rel=1e-5)


def test_ignored_labels_train_nothing():
    x, y = images(12)
    with_ignored = np.where(np.arange(12) % 3 == 0, 255, y).astype(np.uint8)
    kept = np.flatnonzero(with_ignored != 255)
    a, b = cnn(), cnn()
    b.set_weights(a.get_weights())
    for model in (a, b):
        loss = losses.SparseCategoricalCrossentropy(ignore_class=255)
        model.compile("sgd", loss, metrics=["accuracy"])
    loss, accuracy = a.train_on_batch(x, with_ignored)
    other_loss, other_accuracy = b.train_on_batch(x[kept], y[kept])
    assert loss == pytest.approx(other_loss, rel=1e-5)
    assert accuracy == other_accuracy
    for left, right in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)


def test_regularizers_are_in_the_loss():
    x, y = images(6)
    model = cnn(kernel_regularizer="l2", bias_regularizer=convlet.regularizers.L1(0.1))
    plain = cnn()
    model.get_layer("conv2d").set_weights([w + 0.1 for w in model.layers[0].get_weights()])
    plain.set_weights(model.get_weights())
    for m in (model, plain):
        m.compile("sgd", "sparse_categorical_crossentropy")
    kernel, bias = model.layers[0].get_weights()
    penalty = 0.01 * np.square(kernel).sum() + 0.1 * np.abs(bias).sum()
    assert model.evaluate(x, y, verbose=0) == pytest.approx(
        plain.evaluate(x, y, verbose=0) + penalty, rel=1e-5
    )


def run(seed, threads=None, **options):
    """Weights and losses after some epochs with everything random: shuffle, dropout, split."""
    convlet.set_random_seed(seed)
    if threads is not None:
        _core.set_num_threads(threads)
    x, y = images(53)
    model = cnn(dropout=0.3)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    options = {"batch_size": 8, "validation_split": 0.2} | options
    history = model.fit(x, y, epochs=3, verbose=0, **options).history
    return history, model.get_weights()


def same(a, b):
    return a[0] == b[0] and all(
        np.array_equal(left, right) for left, right in zip(a[1], b[1], strict=True)
    )


def test_the_same_seed_gives_the_same_bits():
    assert same(run(1), run(1))
    assert not same(run(1), run(2))


def test_the_same_bits_for_any_number_of_threads():
    before = _core.num_threads()
    try:
        results = [run(3, threads) for threads in (1, 2, 5)]
    finally:
        _core.set_num_threads(before)
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def test_shuffling_takes_every_sample_once_in_a_new_order_each_epoch():
    x = np.arange(10, dtype=np.float32)[:, None]
    model = Sequential([layers.Rescaling(1.0, input_shape=(1,)), layers.Dense(1)])
    model.compile(optimizers.SGD(0.0), "mse")
    seen = []
    model.fit(
        x,
        x,
        batch_size=1,
        epochs=3,
        verbose=0,
        callbacks=convlet.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(logs["loss"] * (batch + 1))
        ),
    )
    # The running mean times the count is the running sum: its steps are the samples' own losses.
    sums = np.array(seen).reshape(3, 10)
    own = np.diff(sums, axis=1, prepend=0)
    losses_of_samples = np.sort((model.predict(x) - x).ravel() ** 2)
    for epoch in own:
        np.testing.assert_allclose(np.sort(epoch), losses_of_samples, rtol=1e-3, atol=1e-4)
    assert not np.allclose(own[0], own[1])
    assert not np.allclose(own[1], own[2])


def test_a_validation_split_is_seeded_stratified_and_apart():
    from convlet.models.batches import split_rows
    from convlet.models.data import Samples

    y = np.repeat([0, 1, 2], [60, 30, 10])
    samples = Samples([np.zeros((100, 1))], [y], [y], [None], [None])
    train, held = split_rows(samples, 0.2, True, seed=4)
    assert sorted([*train, *held]) == list(range(100))
    assert np.bincount(y[held]).tolist() == [12, 6, 2]
    again = split_rows(samples, 0.2, True, seed=4)
    np.testing.assert_array_equal(again[1], held)
    assert split_rows(samples, 0.2, True, seed=5)[1].tolist() != held.tolist()
    assert held.tolist() != list(range(80, 100))
    # Sorted data: Keras' rule would hold out the last class only.
    x = np.eye(3)[y] + 0.1 * floats(100, 3)
    model = Sequential([layers.Dense(3, activation="softmax", input_shape=(3,))])
    model.compile(optimizers.Adam(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, epochs=10, validation_split=0.2, verbose=0).history
    assert history["val_accuracy"][-1] > 0.9


def test_a_validation_split_needs_data_and_is_used_for_validation():
    x, y = images(20)
    model = cnn()
    model.compile(optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    history = model.fit(x, y, validation_split=0.25, verbose=0).history
    whole = model.evaluate(x, y, verbose=0)
    # The two parts together are the whole.
    assert 0.75 * history["loss"][0] + 0.25 * history["val_loss"][0] == pytest.approx(
        whole, rel=0.05
    )
    with pytest.raises(ValueError, match="validation_split: 0.5 of 1 samples leaves"):
        model.fit(x[:1], y[:1], validation_split=0.5, verbose=0)
    with pytest.raises(ValueError, match="validation_split: expected arrays in x"):
        model.fit([(x, y)].__iter__(), validation_split=0.5, verbose=0)


def test_generators_and_iterables():
    x, y = images(24)
    batches = [(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)]
    reference = cnn()
    start = reference.get_weights()
    reference.compile("sgd", "sparse_categorical_crossentropy")
    reference.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)

    class Numbered:
        """What Keras calls a Sequence."""

        def __len__(self):
            return 3

        def __getitem__(self, i):
            return batches[i]

    class Iterable:
        def __iter__(self):
            return iter(batches)

    for data, options in [
        (Iterable(), {}),
        (Numbered(), {}),
        (itertools.cycle(batches), {"steps_per_epoch": 3}),
        (Iterable(), {"steps_per_epoch": 3}),
    ]:
        model = cnn()
        model.set_weights(start)
        model.compile("sgd", "sparse_categorical_crossentropy")
        history = model.fit(data, epochs=2, verbose=0, **options).history
        assert history == reference.history.history
        assert model.evaluate(Iterable(), verbose=0) == pytest.approx(
            model.evaluate(x, y, verbose=0), rel=1e-6
        )
    with pytest.raises(
        ValueError, match="expected at least one batch for an epoch, the data ran out"
    ):
        model.fit(iter(batches), epochs=2, verbose=0)
    with pytest.raises(ValueError, match="fit: y: expected None when x gives batches"):
        model.fit(Iterable(), y, verbose=0)
    with pytest.raises(ValueError, match=r"expected batches \(x, y\)"):
        model.fit(iter([x]), verbose=0)
    unbuilt = Sequential([layers.Flatten(), layers.Dense(3, activation="softmax")])
    unbuilt.compile("sgd", "sparse_categorical_crossentropy")
    history = unbuilt.fit(iter(batches), verbose=0, validation_data=Iterable()).history
    assert len(history["val_loss"]) == 1


def test_several_inputs_and_outputs():
    a, b = Input((4,), name="a"), Input((3,), name="b")
    joined = layers.Concatenate()([layers.Dense(5, activation="relu")(a), b])
    model = Model(
        [a, b],
        [
            layers.Dense(3, activation="softmax", name="kind")(joined),
            layers.Dense(2, name="place")(joined),
        ],
    )
    xs = {"a": floats(20, 4), "b": floats(20, 3)}
    ys = {"kind": np.arange(20) % 3, "place": floats(20, 2, seed=5)}
    model.compile(
        "adam",
        {"kind": "sparse_categorical_crossentropy", "place": "mse"},
        loss_weights={"kind": 0.5},
        metrics={"kind": ["accuracy"], "place": "mae"},
    )
    history = model.fit(xs, ys, epochs=2, batch_size=8, verbose=0, validation_data=(xs, ys)).history
    keys = ["loss", "kind_loss", "place_loss", "kind_accuracy", "place_mae"]
    assert list(history) == keys + [f"val_{key}" for key in keys]
    logs = model.evaluate(xs, ys, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(0.5 * logs["kind_loss"] + logs["place_loss"], rel=1e-6)
    kind, place = model.predict(xs)
    assert logs["kind_accuracy"] == pytest.approx((kind.argmax(1) == ys["kind"]).mean())
    assert logs["place_mae"] == pytest.approx(np.abs(place - ys["place"]).mean(), rel=1e-5)
    listed = model.evaluate([xs["a"], xs["b"]], [ys["kind"], ys["place"]], verbose=0)
    assert listed == list(logs.values())
    weighted = model.evaluate(
        xs, ys, verbose=0, return_dict=True, sample_weight={"place": np.zeros(20)}
    )
    assert weighted["place_loss"] == 0
    assert weighted["kind_loss"] == logs["kind_loss"]
    with pytest.raises(ValueError, match=r"expected targets for the outputs \['kind', 'place'\]"):
        model.fit(xs, {"kind": ys["kind"]}, verbose=0)
    with pytest.raises(ValueError, match="class_weight: expected a model with one output"):
        model.fit(xs, ys, class_weight={0: 1}, verbose=0)
    # An output without a loss needs no targets.
    model.compile("adam", {"kind": "sparse_categorical_crossentropy"})
    model.fit(xs, {"kind": ys["kind"]}, verbose=0)
    model.fit(xs, [ys["kind"], None], verbose=0)


def test_frozen_layers_stay():
    x, y = images(12)
    model = cnn()
    model.get_layer("conv2d").trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    assert (before[2] != after[2]).any()
    model.get_layer("conv2d").trainable = True
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    assert (model.get_weights()[0] != before[0]).any()


def test_a_frozen_model_in_a_model_stays():
    x, y = images(12)
    base = cnn()
    base.trainable = False
    model = Sequential([base, layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [base.get_weights(), model.layers[1].get_weights()]
    model.fit(x, y, verbose=0)
    for a, b in zip(before[0], base.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (before[1][0] != model.layers[1].get_weights()[0]).any()


def test_compile_starts_the_optimizer_anew_and_keeps_the_weights():
    x, y = images(12)
    model = cnn()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=2, batch_size=4, verbose=0)
    assert model.optimizer.iterations == 6
    before = model.predict(x)
    model.compile("adam", "sparse_categorical_crossentropy")
    assert model.optimizer.iterations == 0
    np.testing.assert_array_equal(model.predict(x), before)


@pytest.mark.parametrize("cut", ["x", "weight", "huge"])
def test_a_loss_that_is_not_finite_stops_and_names_the_place(cut):
    x, y = images(24)
    model = cnn()
    model.compile("sgd", "sparse_categorical_crossentropy")
    x = x.copy()
    if cut == "x":
        x[17] = np.nan
    elif cut == "weight":
        weights = model.get_weights()
        weights[2][0, 0, 0, 0] = np.inf
        model.set_weights(weights)
    else:
        x[17] = 3e38
        weights = model.get_weights()
        weights[0] += 1
        model.set_weights(weights)
    message = {
        "x": r"fit: the loss is nan in epoch 1, batch 3; .* input '",
        "weight": r"in epoch 1, batch 1; .*parameter 'conv2d_1/kernel'",
        "huge": r"in epoch 1, batch 3; .*layer 'conv2d'",
    }[cut]
    weights = []
    watch = convlet.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: weights.append(model.get_weights())
    )
    with pytest.raises(NonFiniteError, match=message):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[watch])
    for a, b in zip(model.get_weights(), weights[-1], strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(NonFiniteError):
        model.train_on_batch(x[16:], y[16:])


def test_ctrl_c_leaves_the_model_usable():
    x, y = images(64)
    model = cnn()
    model.compile("sgd", "sparse_categorical_crossentropy")

    def interrupt(batch, logs):
        if batch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    stop = convlet.callbacks.LambdaCallback(on_train_batch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=4, epochs=50, verbose=0, callbacks=[stop])
    done = model.optimizer.iterations
    assert 3 <= done <= 5
    model.fit(x, y, batch_size=4, verbose=0)
    assert model.optimizer.iterations == done + 16


def test_predict_while_training():
    x, y = images(64)
    model = cnn()
    model.compile("sgd", "sparse_categorical_crossentropy")
    wrong = []

    def work():
        for _ in range(30):
            rows = model.predict(x[:5]).sum(axis=1)
            if not np.allclose(rows, 1, atol=1e-5):
                wrong.append(rows)

    worker = threading.Thread(target=work)
    worker.start()
    model.fit(x, y, batch_size=8, epochs=5, verbose=0)
    worker.join()
    assert wrong == []


def test_what_fit_prints(capsys):
    x, y = images(40)
    model = cnn()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=2, verbose=2, validation_data=(x, y))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert f"on {_core.op_device()} (chosen by device='auto')" in lines[0]
    assert lines[0].endswith("accuracy is SparseCategoricalAccuracy")
    assert lines[1].startswith("Epoch 1/2: ")
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert f"{name} " in lines[1]
    model.fit(x, y, verbose=2)
    assert len(capsys.readouterr().out.splitlines()) == 1  # the header comes once
    model.fit(x, y, verbose="auto")  # no terminal here
    assert "\r" not in capsys.readouterr().out
    model.fit(x, y, verbose=1, batch_size=1)
    text = capsys.readouterr().out
    assert "\r" in text
    assert "images/s" in text
    model.fit(x, y, verbose=0)
    model.evaluate(x, y, verbose=0)
    assert capsys.readouterr().out == ""


def test_accuracy_becomes_the_one_that_fits_the_loss():
    y = np.array([[0, 1], [1, 1], [1, 0]])
    x = np.array([[-1, 2], [0.2, -1], [3, -2]], np.float32)
    model = Sequential([layers.Flatten(input_shape=(2,))])
    model.compile("sgd", losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"])
    assert model.evaluate(x, y, verbose=0)[1] == pytest.approx(5 / 6)  # of single answers, above 0
    sigmoid = Sequential([layers.Activation("sigmoid", input_shape=(2,))])
    sigmoid.compile("sgd", "binary_crossentropy", metrics=["acc"])
    logs = sigmoid.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["acc"] == pytest.approx(5 / 6)
    softmax = Sequential([layers.Softmax(input_shape=(2,))])
    softmax.compile("sgd", "categorical_crossentropy", metrics="accuracy")
    assert softmax.evaluate(x, [[0, 1], [0, 1], [1, 0]], verbose=0)[1] == pytest.approx(2 / 3)


def test_how_numbers_and_times_are_written(capsys):
    from convlet import progress

    values = [0, 0.5, 1234.5678, 1e-5, 123456.0, np.float32(0.25), np.nan, [0.5, 1]]
    assert [progress.format_value(v) for v in values] == [
        "0.0000",
        "0.5000",
        "1234.5678",
        "1.000e-05",
        "1.235e+05",
        "0.2500",
        "nan",
        "[0.5000 1.0000]",
    ]
    times = [0.123, 12.3, 59.9, 60, 3599.6, 3753]
    assert [progress.format_time(t) for t in times] == [
        "0.12 s",
        "12 s",
        "60 s",
        "1:00 min",
        "1:00:00 h",
        "1:02:33 h",
    ]
    bar = progress.ProgressBar("Work", 100)
    bar.update(25, {"loss": 0.5})
    bar.update(100)
    bar.close("done")
    first, second, last = capsys.readouterr().out.split("\r")[1:]
    assert first.startswith("Work  25/100 [######..................]  ")
    assert "images/s  ETA " in first
    assert first.endswith("loss 0.5000")
    assert "ETA" not in second
    assert last == "done" + " " * (len(second.rstrip()) - 4) + "\n"
    endless = progress.ProgressBar("Work", None, "batches")
    endless.update(3)
    endless.close()
    assert "Work  3  " in capsys.readouterr().out
