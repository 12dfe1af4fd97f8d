"""The precision of a model: where it is chosen, said, saved and refused."""

import numpy as np
import pytest

import convlet
from classifiers import cnn, images

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
