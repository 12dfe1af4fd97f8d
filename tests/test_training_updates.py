"""What happens around the optimizer: gradient accumulation, averaged weights, clipping by value."""

import numpy as np
import pytest
import torch

import convlet
from classifiers import cnn, images
from convlet import Sequential, _core, callbacks, layers, losses, optimizers
from reference import assert_exact, floats, integers


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


def dense(optimizer, seed=0):
    """A dense layer, whose steps on small whole numbers are exact in float32."""
    model = Sequential([layers.Dense(4, input_shape=(4,))])
    model.set_weights([integers(4, 4, seed=seed), integers(4, seed=seed)])
    model.compile(optimizer, "mse")
    return model


# ------------------------------------------------------------ accumulation


def test_accumulated_batches_are_one_large_batch_bit_for_bit():
    x, y = integers(24, 4), integers(24, 4, seed=1)
    large = dense(optimizers.SGD(0.25))
    small = dense(optimizers.SGD(0.25, gradient_accumulation_steps=4))
    large.train_on_batch(x[:8], y[:8])
    before = small.get_weights()
    for i in range(3):
        small.train_on_batch(x[2 * i : 2 * i + 2], y[2 * i : 2 * i + 2])
        assert_same(small.get_weights(), before)
        assert small.optimizer.iterations == 0
    small.train_on_batch(x[6:8], y[6:8])
    assert_same(small.get_weights(), large.get_weights())
    assert small.optimizer.iterations == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: optimizers.SGD(0.05, momentum=0.9, weight_decay=0.1, **k),
        lambda **k: optimizers.Adam(0.01, global_clipnorm=0.1, **k),
        lambda **k: optimizers.RMSprop(0.01, clipvalue=0.05, **k),
        lambda **k: optimizers.AdamW(
            optimizers.schedules.CosineDecay(0.02, 10, warmup_target=0.05, warmup_steps=3), **k
        ),
    ],
    ids=["sgd", "adam", "rmsprop", "adamw"],
)
def test_accumulated_batches_are_one_large_batch(make):
    """Also with regularizers, clipping and a schedule, which count once per update."""
    x, y = images(96)
    model = cnn(kernel_regularizer="l2")
    start = model.get_weights()
    model.compile(make(), "sparse_categorical_crossentropy")
    for i in range(6):
        model.train_on_batch(x[16 * i : 16 * i + 16], y[16 * i : 16 * i + 16])
    expected = model.get_weights()
    model.set_weights(start)
    model.compile(make(gradient_accumulation_steps=4), "sparse_categorical_crossentropy")
    for i in range(24):
        model.train_on_batch(x[4 * i : 4 * i + 4], y[4 * i : 4 * i + 4])
    for got, large, first in zip(model.get_weights(), expected, start, strict=True):
        assert np.abs(large - first).max() > 1e-3
        np.testing.assert_allclose(got, large, rtol=1e-4, atol=2e-5)


def test_batches_left_at_the_end_of_an_epoch_count_for_the_next():
    x, y = integers(10, 4), integers(10, 4, seed=1)
    model = dense(optimizers.SGD(0.25, gradient_accumulation_steps=3))
    model.fit(x, y, batch_size=2, shuffle=False, verbose=0)  # 5 batches: an update and 2 over
    assert model.optimizer.iterations == 1
    before = model.get_weights()
    model.train_on_batch(x[:2], y[:2])
    assert model.optimizer.iterations == 2
    assert not np.array_equal(model.get_weights()[0], before[0])


def test_a_schedule_counts_updates():
    seen = []

    def rate(step):
        seen.append(step)
        return 0.0

    model = dense(optimizers.SGD(rate, gradient_accumulation_steps=2))
    for _ in range(5):
        model.train_on_batch(integers(2, 4), integers(2, 4))
    assert seen == [0, 0, 1, 1, 2]


def test_dropout_differs_between_the_batches_of_an_update():
    model = Sequential([layers.Dropout(0.5, input_shape=(64,)), layers.Dense(1, use_bias=False)])
    model.compile(optimizers.SGD(0.0, gradient_accumulation_steps=8), "mse")
    x, y = np.ones((1, 64), np.float32), np.zeros((1, 1), np.float32)
    assert len({model.train_on_batch(x, y) for _ in range(4)}) == 4


def test_epochs_have_their_own_order_while_gradients_gather():
    x, y = floats(12, 4), floats(12, 4)
    model = dense(optimizers.SGD(0.1, gradient_accumulation_steps=100))
    orders = []
    original = model._engine().start

    def spy(mode, batch, *rest):
        orders.append(tuple(batch.rows))
        return original(mode, batch, *rest)

    model._engine().start = spy
    model.fit(x, y, epochs=2, batch_size=6, verbose=0)
    assert orders[:2] != orders[2:]


def test_moving_averages_of_batch_normalization_follow_every_batch():
    x = floats(32, 6)
    model = Sequential([layers.BatchNormalization(momentum=0.5, input_shape=(6,)), layers.Dense(1)])
    model.compile(optimizers.SGD(0.1, gradient_accumulation_steps=4), "mse")
    mean = np.zeros(6)
    for i in range(3):  # no update yet
        batch = x[8 * i : 8 * i + 8]
        model.train_on_batch(batch, np.zeros((8, 1), np.float32))
        mean = 0.5 * mean + 0.5 * batch.mean(0)
        np.testing.assert_allclose(model.layers[0].get_weights()[2], mean, atol=1e-6)


@pytest.mark.parametrize("batches", [2, 3])
def test_accumulation_goes_on_after_saving(tmp_path, batches):
    x, y = images(40)
    model = cnn(dropout=0.25)
    optimizer = optimizers.Adam(0.01, gradient_accumulation_steps=3)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    for i in range(batches):
        model.train_on_batch(x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8])
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert loaded.optimizer.gradient_accumulation_steps == 3
    for m in (model, loaded):
        m.fit(x, y, epochs=2, batch_size=8, verbose=0)
    assert_same(model.get_weights(), loaded.get_weights())


def test_a_batch_whose_loss_is_not_finite_adds_nothing():
    x, y = integers(4, 4), integers(4, 4, seed=1)
    plain = dense(optimizers.SGD(0.25, gradient_accumulation_steps=2))
    broken = dense(optimizers.SGD(0.25, gradient_accumulation_steps=2))
    for model in (plain, broken):
        model.train_on_batch(x[:2], y[:2])
        if model is broken:
            with pytest.raises(convlet.NonFiniteError):
                model.train_on_batch(np.full((2, 4), np.inf, np.float32), y[:2])
        model.train_on_batch(x[2:], y[2:])
    assert_same(plain.get_weights(), broken.get_weights())


# ------------------------------------------------------------ averaged weights


def average_after(history, momentum):
    """The average of the weights that the updates gave, in float64."""
    average = [w.astype(np.float64) for w in history[0]]
    for weights in history[1:]:
        average = [momentum * a + (1 - momentum) * w for a, w in zip(average, weights, strict=True)]
    return average


def close(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulation", [None, 2])
def test_the_average_is_swapped_in_for_validation_and_kept_at_the_end(accumulation):
    x, y = images(64)
    model = cnn()
    optimizer = optimizers.Adam(
        0.01, use_ema=True, ema_momentum=0.8, gradient_accumulation_steps=accumulation
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    updates, tested = [], []

    class Watch(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if accumulation is None or (batch + 1) % accumulation == 0:
                updates.append(self.model.get_weights())

        def on_test_batch_begin(self, batch, logs=None):
            tested.append(self.model.get_weights())

    model.fit(
        x,
        y,
        batch_size=8,
        epochs=2,
        validation_data=(x, y),
        validation_batch_size=64,
        verbose=0,
        callbacks=[callbacks.SwapEMAWeights(), Watch()],
    )
    per_epoch = len(updates) // 2
    close(tested[0], average_after(updates[:per_epoch], 0.8))
    close(tested[1], average_after(updates, 0.8))
    close(model.get_weights(), average_after(updates, 0.8))
    assert np.abs(model.get_weights()[0] - updates[-1][0]).max() > 1e-4


def test_without_the_callback_validation_sees_the_raw_weights():
    x, y = images(32)
    model = cnn()
    model.compile(optimizers.Adam(0.01, use_ema=True), "sparse_categorical_crossentropy")
    tested, raw = [], []

    class Watch(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raw.append(self.model.get_weights())

        def on_test_batch_begin(self, batch, logs=None):
            tested.append(self.model.get_weights())

    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[Watch()])
    assert_same(tested[0], raw[-1])


def test_overwriting_with_the_average():
    x, y = images(8)
    model = cnn()
    optimizer = optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    history = []
    for _ in range(2):
        model.train_on_batch(x, y)
        history.append(model.get_weights())
    plain = cnn()
    plain.set_weights(history[-1])
    plain.compile(optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    plain.train_on_batch(x, y)
    model.train_on_batch(x, y)
    close(model.get_weights(), average_after([*history, plain.get_weights()], 0.5))


def test_swapping_on_epochs_saves_the_average_and_training_goes_on(tmp_path):
    x, y = images(64)
    paths = tmp_path / "m{epoch}.safetensors"
    options = {"batch_size": 16, "validation_data": (x, y), "verbose": 0}

    def train(swap_on_epoch, epochs):
        convlet.set_random_seed(5)
        model = cnn(dropout=0.2)
        model.compile(
            optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9),
            "sparse_categorical_crossentropy",
        )
        chosen = [callbacks.SwapEMAWeights(swap_on_epoch), callbacks.ModelCheckpoint(paths)]
        history = model.fit(x, y, epochs=epochs, callbacks=chosen, **options)
        return model, history.history["val_loss"]

    model, curve = train(True, 3)
    other, same = train(False, 3)
    assert curve == same
    assert_same(model.get_weights(), other.get_weights())
    train(True, 1)
    # The file predicts with the average, and training goes on from the weights.
    loaded = convlet.load_model(tmp_path / "m1.safetensors")
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(curve[0], rel=1e-6)
    resumed = loaded.fit(
        x, y, initial_epoch=1, epochs=3, callbacks=[callbacks.SwapEMAWeights()], **options
    )
    assert resumed.history["val_loss"] == curve[1:]
    assert_same(loaded.get_weights(), model.get_weights())


def with_average(rate):
    """A model with a running average, after three updates, and their images and labels."""
    x, y = images(32)
    model = cnn()
    model.compile(optimizers.SGD(rate, use_ema=True), "sparse_categorical_crossentropy")
    for _ in range(3):
        model.train_on_batch(x, y)
    return model, x, y


def test_averages_are_saved(tmp_path):
    model, x, y = with_average(0.1)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for m in (model, loaded):
        m.fit(x, y, batch_size=8, verbose=0)
    assert_same(model.get_weights(), loaded.get_weights())


def test_evaluate_and_predict_with_the_average():
    x, y = images(32)
    model = cnn()
    model.compile(
        optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5), "sparse_categorical_crossentropy"
    )
    swap = callbacks.SwapEMAWeights()
    untrained = model.evaluate(x, y, verbose=0)
    assert model.evaluate(x, y, verbose=0, callbacks=[swap]) == untrained  # there is none yet
    history = []
    for _ in range(4):
        model.train_on_batch(x, y)
        history.append(model.get_weights())
    plain = cnn()
    plain.set_weights([np.float32(w) for w in average_after(history, 0.5)])
    plain.compile("sgd", "sparse_categorical_crossentropy")
    swapped = model.evaluate(x, y, verbose=0, callbacks=[swap])
    assert swapped == pytest.approx(plain.evaluate(x, y, verbose=0), rel=1e-5)
    predicted = model.predict(x, callbacks=[swap])
    np.testing.assert_allclose(predicted, plain.predict(x), rtol=1e-4, atol=1e-6)
    assert_same(model.get_weights(), history[-1])


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("moment", ["test_begin", "test_batch_end", "test_end", "epoch_end"])
def test_weights_are_back_after_a_validation_that_was_interrupted(moment, stop):
    x, y = images(32)
    model = cnn()
    model.compile(optimizers.SGD(0.5, use_ema=True), "sparse_categorical_crossentropy")
    raw = []

    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raw.append(self.model.get_weights())

    def interrupted(*_):
        assert np.abs(model.get_weights()[0] - raw[-1][0]).max() > 1e-4  # is the average
        raise stop

    ending = Stop()
    setattr(ending, f"on_{moment}", interrupted)
    # A callback before this one brings the weights back at the end of a validation.
    swap = callbacks.SwapEMAWeights(swap_on_epoch=moment == "epoch_end")
    both = [ending, swap] if moment == "test_end" else [swap, ending]
    with pytest.raises(stop):
        model.fit(x, y, batch_size=8, validation_data=(x, y), verbose=0, callbacks=both)
    assert_same(model.get_weights(), raw[-1])


@pytest.mark.parametrize("moment", ["batch_begin", "batch_end", "end"])
@pytest.mark.parametrize("what", ["test", "predict"])
def test_weights_are_back_after_an_evaluation_that_was_interrupted(what, moment):
    model, x, y = with_average(0.5)
    raw = model.get_weights()

    def interrupted(*_):
        assert np.abs(model.get_weights()[0] - raw[0]).max() > 1e-4
        raise KeyboardInterrupt

    stop = callbacks.LambdaCallback(**{f"on_{what}_{moment}": interrupted})
    both = [stop, callbacks.SwapEMAWeights()]
    with pytest.raises(KeyboardInterrupt):
        if what == "test":
            model.evaluate(x, y, verbose=0, callbacks=both)
        else:
            model.predict(x, callbacks=both)
    assert_same(model.get_weights(), raw)


@pytest.mark.parametrize("what", ["predict", "evaluate", "fit"])
def test_an_average_that_was_in_place_stays(what, tmp_path):
    """In what SwapEMAWeights(swap_on_epoch=True) lets a ModelCheckpoint save."""
    model, x, y = with_average(0.5)
    model._engine().use_average(True)
    model.save(tmp_path / "m.safetensors")
    model = convlet.load_model(tmp_path / "m.safetensors")
    average = model.get_weights()

    def broken():
        raise OSError("no more data")
        yield

    with pytest.raises(OSError, match="no more data"):
        getattr(model, what)(broken())
    assert_same(model.get_weights(), average)


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_a_swap_that_is_interrupted_is_undone(calls):
    model, x, y = with_average(0.5)
    raw, swap = model.get_weights(), callbacks.SwapEMAWeights()
    expected = model.evaluate(x, y, verbose=0, callbacks=[swap])
    engine = model._engine()

    class Interrupted:
        """The state; one of its changes is the last before Ctrl-C."""

        left = calls

        def __getattr__(self, name):
            method = getattr(state, name)
            return self.changed(method) if name in ("set", "set_slot") else method

        def changed(self, method):
            def change(*arguments):
                method(*arguments)
                self.left -= 1
                if self.left == 0:
                    raise KeyboardInterrupt

            return change

    state, engine.state = engine.state, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        model.evaluate(x, y, verbose=0, callbacks=[swap])
    engine.state = state
    assert_same(model.get_weights(), raw)
    assert model.evaluate(x, y, verbose=0, callbacks=[swap]) == expected


def test_swapping_without_an_average():
    x, y = images(8)
    model = cnn()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="SwapEMAWeights: .*use_ema=True, got SGD"):
        model.fit(x, y, verbose=0, callbacks=[callbacks.SwapEMAWeights()])


@pytest.mark.parametrize("n", [0, 1, 17, 99, 5000])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_the_average_kernel_on_whole_numbers_is_exact(isa, n, momentum):
    graph = _core.Graph()
    x = graph.input("x", [max(1, n)])
    weight = graph.parameter("w", [max(1, n), 1])
    graph.output(graph.node("dense", "dense", [x], [weight]))
    state = _core.State(graph)
    state.set_optimizer({"kind": "sgd", "average": True, "average_momentum": momentum})
    plan = _core.Plan(graph, state, "train", 1, [{"kind": "mean_squared_error"}])
    start = integers(max(1, n), 1, seed=2)
    state.set(0, start)
    data = [np.zeros((1, max(1, n)), np.float32)], [np.zeros((1, 1), np.float32)]
    plan.run(*data, learning_rate=0.0)
    assert_exact(state.get_slot(0, 0), start)
    moved = integers(max(1, n), 1, seed=3)
    state.set(0, moved)
    plan.run(*data, learning_rate=0.0)
    expected = np.float32(momentum) * start + np.float32(1 - momentum) * moved
    assert_exact(state.get_slot(0, 0), expected)


# ------------------------------------------------------------ clipping


def test_clipvalue_as_in_torch():
    x, y = floats(8, 5), 10 * floats(8, 3, seed=1)
    model = Sequential([layers.Dense(3, input_shape=(5,))])
    model.compile(optimizers.SGD(0.05, momentum=0.9, clipvalue=0.5), "mse")
    w, b = (torch.tensor(a, requires_grad=True) for a in model.get_weights())
    peer = torch.optim.SGD([w, b], 0.05, momentum=0.9)
    for _ in range(10):
        model.train_on_batch(x, y)
        peer.zero_grad()
        torch.nn.functional.mse_loss(torch.from_numpy(x) @ w + b, torch.from_numpy(y)).backward()
        torch.nn.utils.clip_grad_value_([w, b], 0.5)
        peer.step()
    for ours, theirs in zip(model.get_weights(), (w, b), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["sgd", "rmsprop", "adam"])
def test_clipvalue_of_the_kernel(isa, kind):
    g = integers(99, low=-9, high=9)
    g[7] = np.nan
    slots = {"sgd": 0, "rmsprop": 1, "adam": 2}[kind]

    def update(spec, gradient):
        p, state = floats(99), [np.zeros(99, np.float32) for _ in range(slots)]
        _core.optimizer_update({"kind": kind, **spec}, 0.5, 1, p, gradient, state)
        return p

    clipped = update({"clip_value": 2.0}, g)
    assert_exact(clipped, update({}, np.clip(g, -2, 2)))
    assert np.flatnonzero(np.isnan(clipped)).tolist() == [7]
    assert not np.array_equal(clipped, update({}, g), equal_nan=True) or kind == "adam"


# ------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps: expected None or an in"),
        ({"gradient_accumulation_steps": 2.0}, "gradient_accumulation_steps"),
        ({"ema_momentum": 1.5}, r"ema_momentum: expected a number in \[0, 1\], got 1.5"),
        ({"ema_momentum": -1}, "ema_momentum: expected a number >= 0"),
        ({"ema_overwrite_frequency": 0}, "ema_overwrite_frequency: expected None or an integer of"),
        ({"clipvalue": 0}, "clipvalue: expected a number > 0, got 0"),
        ({"clipvalue": 1, "clipnorm": 1}, "expected one of clipnorm, clipvalue and global_clipnor"),
        ({"loss_scale_factor": 2.0}, "loss_scale_factor: expected None, got 2.0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=f"SGD: {message}"):
        optimizers.SGD(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulation_steps": 0}, "accumulation_steps >= 1, got 0"),
        ({"average_momentum": 2.0}, r"average_momentum in \[0,1\], got 2"),
        ({"clip_value": -1.0}, "clip_value >= 0"),
        ({"clip_value": 1.0, "clip_norm": 1.0}, "at most one of clip_norm"),
        ({"clip_norm": -1.0}, "a clip norm of at least 0"),
    ],
)
def test_a_state_refuses_such_rules(options, message):
    graph = _core.Graph()
    state = _core.State(graph)
    with pytest.raises(ValueError, match=message):
        state.set_optimizer({"kind": "sgd", **options})


def test_single_updates_know_no_plans_options():
    p = floats(3)
    for options in ({"clip_norm": 1.0}, {"accumulation_steps": 2}, {"average": True}):
        with pytest.raises(ValueError, match="expected no norms, accumulation or average"):
            _core.optimizer_update({"kind": "sgd", **options}, 0.1, 1, p, floats(3), [])


def test_losses_of_accumulated_batches_are_reported_one_by_one():
    x, y = images(16)
    model = cnn()
    model.compile(
        optimizers.SGD(0.5, gradient_accumulation_steps=2),
        losses.SparseCategoricalCrossentropy(),
    )
    first = model.train_on_batch(x[:8], y[:8])
    assert first == model.test_on_batch(x[:8], y[:8])
    second = model.train_on_batch(x[8:], y[8:])
    assert second != model.test_on_batch(x[8:], y[8:])
