"""lr_find and the plots: what they find and draw, and that a model is as it was before."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import convlet
from classifiers import cnn, images
from convlet import optimizers


def compiled(optimizer="adam", **options):
    model = cnn(**options)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_the_curve_and_its_suggestion():
    x, y = images(200)
    found = convlet.lr_find(compiled("sgd"), x, y, batch_size=16, min_rate=1e-5, max_rate=100.0)
    assert found.rates[0] == pytest.approx(1e-5)
    ratios = np.diff(np.log(found.rates))
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-6)
    assert len(found.rates) == len(found.losses) == len(found.smoothed) <= 100
    assert 1e-4 < found.suggestion < 10
    # It is a good rate: better than a tenth and than a thousand of it.
    losses = {}
    for factor in (0.01, 1.0, 1000.0):
        convlet.set_random_seed(1)
        model = compiled(optimizers.SGD(found.suggestion * factor))
        try:
            losses[factor] = model.fit(x, y, epochs=4, verbose=0).history["loss"][-1]
        except convlet.NonFiniteError:
            losses[factor] = np.inf
    assert losses[1.0] < losses[0.01]
    assert losses[1.0] < losses[1000.0]


def test_the_suggestion_is_where_a_noisy_curve_falls_fastest():
    """A smooth step down at 1e-2 under the noise of batches."""
    from convlet.models.rate_finder import _steepest

    rates = np.geomspace(1e-6, 1, 100)
    for seed in range(20):
        noise = 0.1 * np.random.default_rng(seed).standard_normal(100)
        losses = 1 - 0.9 / (1 + (1e-2 / rates) ** 1.5) + noise
        smoothed = np.convolve(np.pad(losses, 5, "edge"), np.ones(11) / 11, "valid")
        suggestion = _steepest(rates.tolist(), losses.tolist(), smoothed.tolist())
        assert 3e-3 < suggestion < 3e-2
    assert _steepest([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert _steepest([1, 2, 3, 4], [1, 2, 3, 4], [4, 3, 2, 1]) is None


def test_the_smoothed_loss_is_a_running_average():
    x, y = images(64)
    found = convlet.lr_find(compiled(), x, y, steps=10, smoothing=0.8)
    average = 0.0
    for i, loss in enumerate(found.losses):
        average = 0.8 * average + 0.2 * loss
        assert found.smoothed[i] == pytest.approx(average / (1 - 0.8 ** (i + 1)))


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.SGD(0.1, momentum=0.9),
        optimizers.Adam(0.01, use_ema=True, gradient_accumulation_steps=2),
        optimizers.RMSprop(optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)),
    ],
    ids=lambda o: o.name,
)
def test_everything_is_put_back(optimizer):
    """A model that looked for its rate goes on exactly like one that did not."""
    x, y = images(60)
    results = []
    for search in (False, True):
        convlet.set_random_seed(4)
        model = compiled(optimizers.get(optimizers.serialize(optimizer)), dropout=0.3)
        model.fit(x, y, batch_size=16, verbose=0)
        weights = model.get_weights()
        if search:
            convlet.lr_find(model, x, y, batch_size=16, steps=20)
            for before, after in zip(weights, model.get_weights(), strict=True):
                np.testing.assert_array_equal(after, before)
        model.fit(x, y, epochs=3, initial_epoch=1, batch_size=16, verbose=0)
        results.append((model.get_weights(), model.optimizer.iterations, model.optimizer.lr))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert results[0][1:] == results[1][1:]


def test_batch_statistics_are_put_back():
    x, y = images(32)
    layers = convlet.layers
    model = convlet.Sequential(
        [
            convlet.Input((9, 9, 2)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.get_weights()
    convlet.lr_find(model, x, y, steps=5)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_diverging_loss_ends_the_search():
    x, y = images(64)
    found = convlet.lr_find(compiled("sgd"), x, y, min_rate=1e-3, max_rate=1e6, steps=60)
    assert len(found.rates) < 60
    assert np.isfinite(found.losses).all()


def test_an_error_on_the_way_puts_back_too():
    x, y = images(8)
    model = compiled()
    before = model.get_weights()

    def batches():
        yield x, y
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        convlet.lr_find(model, batches())
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.optimizer.iterations == 0


def test_data_that_count_their_epochs():
    x, y = images(32)
    mixed = convlet.data.MixUp()(x, y, num_classes=3, batch_size=8)
    model = cnn()
    model.compile("adam", "categorical_crossentropy")
    convlet.lr_find(model, mixed, steps=9)
    assert mixed.epoch == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1}, "lr_find: steps"),
        ({"min_rate": 0.0}, "expected 0 < min_rate < max_rate"),
        ({"min_rate": 1.0, "max_rate": 0.1}, "expected 0 < min_rate < max_rate, got 1.0 and 0.1"),
        ({"smoothing": 1.0}, r"smoothing in \[0, 1\)"),
        ({"divergence": 1.0}, "divergence > 1"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_numbers_out_of_range(options, message):
    x, y = images(8)
    with pytest.raises(RuntimeError, match="expected a compiled model"):
        convlet.lr_find(cnn(), x, y)
    with pytest.raises(ValueError, match=message):
        convlet.lr_find(compiled(), x, y, **options)
    with pytest.raises(ValueError, match="the loss is not finite with the smallest rate"):
        convlet.lr_find(compiled(), np.full_like(x, np.nan), y)


# ------------------------------------------------------------ plots


def test_plots_are_pictures(tmp_path):
    x, y = images(64)
    model = compiled()
    found = convlet.lr_find(model, x, y, steps=20)
    history = model.fit(x, y, epochs=4, validation_data=(x, y), validation_freq=2, verbose=0)
    for draw in (found.plot, history.plot):
        draw(tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as picture:
            assert picture.width > 300
            assert len(picture.convert("L").getcolors(256) or range(257)) > 10
        draw(str(tmp_path / "a.svg"))
        assert "<svg" in (tmp_path / "a.svg").read_text()
        with pytest.raises(ValueError, match="plot: path: expected a name that ends in one of"):
            draw(tmp_path / "a.tiger")
        with pytest.raises(FileNotFoundError):
            draw(tmp_path / "missing" / "a.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg"]
    with pytest.raises(ValueError, match="expected at least one epoch"):
        convlet.callbacks.History().plot(tmp_path / "b.png")


def test_a_search_that_finds_nothing_is_drawn(tmp_path):
    found = convlet.models.RateSearch([1e-3, 1e-2], [1.0, 2.0], [1.0, 1.5], None)
    found.plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_without_matplotlib(tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import convlet\n"
        "convlet.models.RateSearch([1], [1], [1], None).plot('a.png')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "ImportError: lr_find: plot: needs matplotlib" in result.stderr
    assert "pip install 'convlet[plots]'" in result.stderr
    assert not list(tmp_path.iterdir())
