"""The precision of a model: where it is chosen, said, saved and refused."""

import re

import numpy as np
import pytest

import convlet
from classifiers import cnn, images
from convlet import Input, Sequential, _core, layers, ops

LOSS = "sparse_categorical_crossentropy"


def test_a_precision_that_cannot_be_had_names_the_reason_and_the_fix():
    model = cnn()
    with pytest.raises(ValueError) as error:
        model.compile("sgd", LOSS, device="cpu", precision="tf32")
    assert str(error.value) == (
        'compile: precision "tf32" cannot be had on the CPU: it needs an NVIDIA GPU; '
        'use precision="float32"'
    )
    assert not model.compiled
    assert model.precision == "float32"


def test_a_model_saved_in_a_precision_that_is_not_here_loads_in_float32_and_says_so(tmp_path):
    model = cnn()
    model.compile("sgd", LOSS)
    x, _ = images(3)
    expected = model.predict(x)
    model.precision = "tf32"
    model.save(tmp_path / "m.safetensors")
    with pytest.warns(UserWarning, match='trained in tf32, float32 here: precision "tf32" cannot'):
        loaded = convlet.load_model(tmp_path / "m.safetensors", device="cpu")
    assert loaded.precision == "float32"
    np.testing.assert_array_equal(loaded.predict(x), expected)
    with pytest.raises(ValueError, match='m.safetensors: compile: precision "tf32" cannot be had'):
        convlet.load_model(tmp_path / "m.safetensors", device="cpu", precision="tf32")


@pytest.fixture
def emulated():
    """Lets any machine compute in bfloat16."""
    _core.set_bfloat16("emulated")
    yield
    _core.set_bfloat16("measured")


def test_bfloat16_needs_its_instructions():
    before = _core.isa()
    _core.set_isa("baseline")
    try:
        with pytest.raises(ValueError, match=r"needs AVX512-BF16 instructions, .*baseline; use"):
            cnn().compile("sgd", LOSS, device="cpu", precision="bfloat16")
    finally:
        _core.set_isa(before)


def test_a_plan_follows_a_change_of_the_instruction_set(emulated):
    model = cnn()
    model.compile("sgd", LOSS, device="cpu", precision="bfloat16")
    model.predict(images(3)[0])
    _core.set_bfloat16("native")
    before = _core.isa()
    _core.set_isa("baseline")
    try:
        with pytest.raises(ValueError, match='precision "bfloat16" cannot be had on the CPU'):
            model.predict(images(3)[0])
        with pytest.raises(ValueError, match='^dense: precision "bfloat16" cannot be had'):
            ops.dense(np.ones((2, 3), "f"), np.ones((3, 4), "f"), precision="bfloat16")
    finally:
        _core.set_isa(before)


def test_fit_says_the_precision_and_how_fast_it_is(emulated, capsys):
    x, y = images(8)
    model = cnn()
    model.compile("sgd", LOSS, device="cpu", precision="bfloat16")
    model.fit(x, y)
    line = capsys.readouterr().out.splitlines()[0]
    assert re.search(r"bfloat16 emulated \(products at \d+\.\d times the speed of float32\)", line)
    assert "; precision bfloat16" in line


def wide():
    """Layers with enough channels for bfloat16."""
    return Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def test_predict_evaluate_and_the_saved_model_keep_the_precision(emulated, tmp_path):
    x, y = images(40)
    model, exact = wide(), wide()
    exact.set_weights(model.get_weights())
    model.compile("adam", LOSS, device="cpu", precision="bfloat16")
    exact.compile("adam", LOSS, device="cpu")
    p, q = model.predict(x), exact.predict(x)
    assert 1e-5 < np.abs(p - q).max() < 0.02
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors", device="cpu")
    assert loaded.precision == "bfloat16"
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    exact = convlet.load_model(tmp_path / "m.safetensors", device="cpu", precision="float32")
    assert exact.precision == "float32"
    assert np.abs(exact.predict(x) - model.predict(x)).max() > 1e-5
