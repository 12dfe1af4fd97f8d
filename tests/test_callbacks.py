"""Callbacks: each on a scripted course of losses, and in fit."""

import csv
import math

import numpy as np
import pytest

import convlet
from convlet import Sequential, callbacks, layers, optimizers
from reference import floats


def model_of_one_number(rate=0.1, **options):
    """w, trained towards 1; its loss (w - 1)^2 goes down by a known factor each epoch."""
    model = Sequential([layers.Dense(1, use_bias=False, input_shape=(1,))])
    model.set_weights([[[0.0]]])
    model.compile(optimizers.SGD(rate), "mse", **options)
    return model


X = np.ones((1, 1), np.float32)


def fit(model, epochs, *given, **options):
    return model.fit(X, X, epochs=epochs, verbose=0, callbacks=list(given), **options)


class Script(callbacks.Callback):
    """Puts given values into the logs."""

    def __init__(self, **values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: values[epoch] for name, values in self.values.items()})


class Recorder(callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __getattribute__(self, name):
        if name.startswith("on_"):
            calls = object.__getattribute__(self, "calls")
            return lambda *arguments: calls.append((name, arguments[0]))
        return object.__getattribute__(self, name)


def test_every_hook_is_called_in_keras_order():
    model = model_of_one_number()
    recorder = Recorder()
    x = np.ones((3, 1), np.float32)
    fit_options = {"batch_size": 2, "verbose": 0, "validation_data": (X, X)}
    model.fit(x, x, callbacks=[recorder], **fit_options)
    names = [name for name, _ in recorder.calls]
    assert names[:2] == ["on_train_begin", "on_epoch_begin"]
    assert names[-2:] == ["on_epoch_end", "on_train_end"]
    assert "on_test_begin" in names
    assert "on_test_end" in names
    assert names.index("on_test_begin") < names.index("on_epoch_end")
    assert recorder.params == {"epochs": 1, "steps": 2, "verbose": 0, "validation": True}
    assert recorder.model is model


def test_batch_hooks():
    seen = []

    class Old(callbacks.Callback):
        """The names that Keras had before."""

        def on_batch_begin(self, batch, logs=None):
            seen.append(("begin", batch))

        def on_batch_end(self, batch, logs=None):
            seen.append(("end", batch, sorted(logs)))

    model = model_of_one_number(metrics=["mae"])
    x = np.ones((3, 1), np.float32)
    model.fit(x, x, batch_size=2, verbose=0, callbacks=Old())
    keys = ["loss", "mae"]
    assert seen == [("begin", 0), ("end", 0, keys), ("begin", 1), ("end", 1, keys)]


def test_history():
    model = model_of_one_number()
    history = fit(model, 3, validation_data=(X, X))
    assert model.history is history
    assert history.epoch == [0, 1, 2]
    # w goes from 0 towards 1 by the factor 0.8: the loss before each step is 0.64^epoch.
    assert history.history["loss"] == pytest.approx([1, 0.64, 0.4096], rel=1e-5)
    assert history.history["val_loss"] == pytest.approx([0.64, 0.4096, 0.262144], rel=1e-5)
    later = fit(model, 5, initial_epoch=3)
    assert later.epoch == [3, 4]


def test_early_stopping():
    values = [5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 2.0]
    model = model_of_one_number()
    stop = callbacks.EarlyStopping("val_x", patience=2, mode="min", restore_best_weights=True)
    weights = []
    keep = callbacks.LambdaCallback(
        on_epoch_end=lambda e, logs: weights.append(model.get_weights())
    )
    history = fit(model, 7, Script(val_x=values), keep, stop)
    assert history.epoch == [0, 1, 2, 3, 4]
    assert stop.stopped_epoch == 4
    assert stop.best == 3.0
    assert model.get_weights() == weights[2]
    # The same weights stay when they are not asked back.
    plain = callbacks.EarlyStopping("val_x", patience=2, mode="min")
    fit(model, 7, Script(val_x=values), plain)
    assert plain.stopped_epoch == 4
    assert model.get_weights() != weights[2]


@pytest.mark.parametrize(
    ("options", "values", "epochs"),
    [
        ({"min_delta": 0.5, "patience": 1, "mode": "min"}, [3, 2.8, 2.6, 2.4, 2], 2),
        ({"patience": 1, "mode": "max"}, [1, 2, 3, 2, 5], 4),
        ({"patience": 0, "mode": "min"}, [3, 2, 2, 1], 3),
        ({"patience": 2, "mode": "min", "baseline": 1.0}, [3, 2, 2.5, 1.2], 3),
        ({"patience": 1, "mode": "min", "start_from_epoch": 3}, [1, 2, 3, 4, 5, 6], 5),
        ({"patience": 1, "mode": "min"}, [math.nan, math.nan, 1], 2),
    ],
)
def test_early_stopping_options(options, values, epochs):
    stop = callbacks.EarlyStopping("x", **options)
    history = fit(model_of_one_number(), len(values), Script(x=values), stop)
    assert len(history.epoch) == epochs


def test_modes_from_names():
    for name, largest in [
        ("val_loss", False),
        ("val_accuracy", True),
        ("acc", True),
        ("auc", True),
        ("f1_score", True),
        ("mae", False),
        ("top_k_categorical_accuracy", True),
    ]:
        assert callbacks.EarlyStopping(name).largest_is_best == largest
    with pytest.raises(ValueError, match="mode: expected 'min' or 'max' for 'speed'"):
        _ = callbacks.EarlyStopping("speed").largest_is_best
    with pytest.raises(ValueError, match="mode: expected 'auto', 'min' or 'max', got 'best'"):
        callbacks.EarlyStopping(mode="best")


@pytest.mark.parametrize(
    "make",
    [
        callbacks.EarlyStopping,
        callbacks.ReduceLROnPlateau,
        lambda: callbacks.ModelCheckpoint("m.safetensors", save_best_only=True),
    ],
)
def test_a_value_that_never_comes_is_an_error(make):
    with pytest.raises(ValueError, match=r"monitor: expected one of .*'loss'.*no validation data"):
        fit(model_of_one_number(), 1, make())


def test_a_value_may_be_missing_between_validations():
    stop = callbacks.EarlyStopping("val_loss", patience=1)
    history = fit(model_of_one_number(), 6, stop, validation_data=(X, X), validation_freq=2)
    assert len(history.epoch) == 6
    assert len(history.history["val_loss"]) == 3


def test_model_checkpoint(tmp_path):
    model = model_of_one_number()
    best = callbacks.ModelCheckpoint(
        tmp_path / "best.safetensors", monitor="x", mode="min", save_best_only=True
    )
    every = callbacks.ModelCheckpoint(str(tmp_path / "deep" / "{epoch:02d}-{loss:.2f}.safetensors"))
    values = []
    keep = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: values.append(model.get_weights()[0].item())
    )
    fit(model, 3, Script(x=[3.0, 1.0, 2.0]), keep, best, every)
    loaded = convlet.load_model(tmp_path / "best.safetensors")
    assert loaded.get_weights()[0].item() == values[1]
    names = sorted(path.name for path in (tmp_path / "deep").iterdir())
    assert names == ["01-1.00.safetensors", "02-0.64.safetensors", "03-0.41.safetensors"]
    # Not worse than what a run before had.
    later = callbacks.ModelCheckpoint(
        tmp_path / "later.safetensors",
        monitor="x",
        mode="max",
        save_best_only=True,
        initial_value_threshold=10,
    )
    fit(model, 1, Script(x=[9.0]), later)
    assert not (tmp_path / "later.safetensors").exists()


def test_model_checkpoint_of_weights_and_by_batches(tmp_path):
    model = model_of_one_number()
    x = np.ones((10, 1), np.float32)
    checkpoint = callbacks.ModelCheckpoint(
        str(tmp_path / "{epoch}.safetensors"), save_weights_only=True, save_freq=3
    )
    model.fit(x, x, batch_size=2, epochs=2, verbose=0, callbacks=[checkpoint])  # 10 batches
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.safetensors", "2.safetensors"]
    other = model_of_one_number()
    other.load_weights(tmp_path / "2.safetensors")
    assert other.get_weights()[0].item() == pytest.approx(1 - 0.8**9, rel=1e-5)


def test_model_checkpoint_names_what_it_cannot_take(tmp_path):
    with pytest.raises(ValueError, match=r"filepath: expected a path that ends in '\.safetensors'"):
        callbacks.ModelCheckpoint("model.h5")
    with pytest.raises(ValueError, match="save_freq"):
        callbacks.ModelCheckpoint("m.safetensors", save_freq="batch")
    wrong = callbacks.ModelCheckpoint(str(tmp_path / "{val_acc}.safetensors"))
    with pytest.raises(ValueError, match="expected 'epoch' or a name of .*, got 'val_acc'"):
        fit(model_of_one_number(), 1, wrong)


def test_reduce_lr_on_plateau():
    values = [5, 4, 4, 4, 4, 4, 4, 3]
    model = model_of_one_number(0.1)
    reduce = callbacks.ReduceLROnPlateau("x", 0.5, patience=2, mode="min", min_lr=0.03)
    history = fit(model, 8, Script(x=values), reduce).history
    # The rate of an epoch is noted before it is changed.
    assert history["learning_rate"] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.03, 0.03])
    cool = callbacks.ReduceLROnPlateau("x", 0.5, patience=1, mode="min", cooldown=2)
    model = model_of_one_number(0.1)
    history = fit(model, 8, Script(x=[1] * 8), cool).history
    assert history["learning_rate"] == pytest.approx(
        [0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125]
    )
    with pytest.raises(ValueError, match="factor: expected a number in"):
        callbacks.ReduceLROnPlateau(factor=1.0)


def test_learning_rate_scheduler():
    for schedule in (lambda epoch: 0.1 / (epoch + 1), lambda epoch, rate: 0.1 / (epoch + 1)):
        model = model_of_one_number(0.5)
        history = fit(model, 3, callbacks.LearningRateScheduler(schedule)).history
        assert history["learning_rate"] == pytest.approx([0.1, 0.05, 0.1 / 3])
        expected = 1 - (1 - 0.2) * (1 - 0.1) * (1 - 0.2 / 3)
        assert model.get_weights()[0].item() == pytest.approx(expected, rel=1e-5)

    def broken(epoch, rate):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        fit(model_of_one_number(), 1, callbacks.LearningRateScheduler(broken))
    with pytest.raises(ValueError, match="expected a number from schedule, got 'fast'"):
        fit(model_of_one_number(), 1, callbacks.LearningRateScheduler(lambda epoch: "fast"))


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    model = model_of_one_number()
    history = fit(model, 2, callbacks.CSVLogger(path), validation_data=(X, X)).history
    fit(model, 3, callbacks.CSVLogger(path, append=True), initial_epoch=2, validation_data=(X, X))
    rows = list(csv.DictReader(path.open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert list(rows[0]) == ["epoch", "loss", "val_loss"]
    assert [float(row["val_loss"]) for row in rows[:2]] == history["val_loss"]
    fit(model, 1, callbacks.CSVLogger(path, separator=";"))
    assert path.read_text().splitlines()[0] == "epoch;loss"


def test_terminate_on_nan_ends_quietly(capsys):
    model = model_of_one_number()
    x = np.array([[1], [1], [np.nan], [1]], np.float32)
    stop = callbacks.TerminateOnNaN()
    history = model.fit(x, x, batch_size=1, epochs=5, shuffle=False, verbose=0, callbacks=[stop])
    assert history.epoch == [0]
    assert model.optimizer.iterations == 2
    assert np.isfinite(model.get_weights()[0]).all()
    assert "Batch 2: the loss is nan" in capsys.readouterr().out


def test_lambda_callback():
    seen = []
    hooks = callbacks.LambdaCallback(
        on_train_begin=lambda logs: seen.append("begin"),
        on_epoch_end=lambda epoch, logs: seen.append((epoch, logs["loss"])),
        on_test_end=lambda logs: seen.append("test"),
    )
    fit(model_of_one_number(), 1, hooks, validation_data=(X, X))
    assert seen == ["begin", "test", (0, 1.0)]
    with pytest.raises(TypeError, match="LambdaCallback: unexpected argument 'on_epoch'"):
        callbacks.LambdaCallback(on_epoch=print)


def test_a_callback_can_stop_training():
    model = model_of_one_number()

    def stop(batch, logs):
        model.stop_training = batch == 1

    x = np.ones((5, 1), np.float32)
    history = model.fit(
        x,
        x,
        batch_size=1,
        epochs=3,
        verbose=0,
        callbacks=[callbacks.LambdaCallback(on_train_batch_end=stop)],
    )
    assert model.optimizer.iterations == 2
    assert len(history.epoch) == 1


def test_metrics_that_are_arrays_reach_the_history(tmp_path):
    model = Sequential([layers.Dense(3, activation="softmax", input_shape=(4,))])
    model.compile("sgd", "categorical_crossentropy", metrics=[convlet.metrics.F1Score()])
    y = np.eye(3, dtype=np.float32)[np.arange(9) % 3]
    path = tmp_path / "log.csv"
    history = model.fit(
        floats(9, 4), y, verbose=2, epochs=2, callbacks=[callbacks.CSVLogger(path)]
    ).history
    assert np.shape(history["f1_score"]) == (2, 3)
    assert len(path.read_text().splitlines()) == 3
