"""compile, fit and evaluate name what they cannot take, before the first step."""

import numpy as np
import pytest

from classifiers import cnn, images
from convlet import Sequential, devices, layers, losses, optimizers
from reference import floats

BAD_COMPILE = [
    ({"optimizer": "adma"}, r"optimizer: expected one of \['adam'"),
    ({"loss": "crossentropy"}, "loss: expected one of"),
    ({"loss": None}, "loss: expected a loss, got None"),
    ({"loss": ["mse", "mse"]}, "loss: expected one entry for each of the outputs"),
    ({"loss": {"nope": "mse"}}, r"loss: expected names of outputs \['dense'\], got \['nope'\]"),
    ({"metrics": ["acuracy"]}, "metrics: expected 'accuracy'"),
    ({"metrics": ["accuracy", "accuracy"]}, "got 'accuracy' twice"),
    ({"loss_weights": ["a"]}, "loss_weights: expected numbers"),
    ({"device": "gpu"}, "device: expected 'auto', 'cpu' or 'cuda', got 'gpu'"),
    ({"precision": "half"}, "precision: expected 'float32', 'tf32' or 'bfloat16', got 'half'"),
    ({"winograd": True}, "winograd: expected 'never', 'inference' or 'always', got True"),
    ({"precision": "tf32", "device": "cpu"}, 'precision "tf32" cannot be had on the CPU: it needs'),
]


@pytest.mark.parametrize(("change", "message"), BAD_COMPILE)
def test_compile_names_what_it_cannot_take(change, message):
    arguments = {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy"}
    with pytest.raises(ValueError, match=message):
        cnn().compile(**(arguments | change))


def test_a_device_that_cannot_be_had(monkeypatch):
    monkeypatch.setattr(devices, "why_not_cuda", lambda: "there is none")
    with pytest.raises(ValueError) as error:
        cnn().compile("sgd", "mse", device="cuda")
    assert str(error.value) == (
        "compile: device: 'cuda' cannot be used: there is none; use device='cpu' or 'auto'"
    )
    model = cnn()
    model.compile("sgd", "mse", device="auto")
    assert model.device == "cpu"


BAD_OPTIMIZERS = [
    (lambda: optimizers.SGD(-1), "SGD: learning_rate: expected a number >= 0, got -1"),
    (lambda: optimizers.SGD("fast"), "learning_rate: expected a number, got 'fast'"),
    (lambda: optimizers.SGD(momentum=1), r"momentum: expected a number in \[0, 1\), got 1"),
    (lambda: optimizers.Adam(beta_1=1.0), "beta_1"),
    (lambda: optimizers.Adam(amsgrad=True), "amsgrad: expected False, got True"),
    (
        lambda: optimizers.Adam(clipnorm=1, global_clipnorm=1),
        "expected one of clipnorm, clipvalue and global_clipnorm",
    ),
    (lambda: optimizers.Adam(clipnorm=-1), "clipnorm: expected a number > 0, got -1"),
]


@pytest.mark.parametrize(("make", "message"), BAD_OPTIMIZERS)
def test_bad_optimizers_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="SGD: unexpected argument 'lr_decay'"):
        optimizers.SGD(lr_decay=1)


BAD_DATA = [
    (lambda x, y: (x, None), "fit: y: expected targets, got None"),
    (lambda x, y: (x[:, :8], y), r"fit: x: expected \(N,9,9,2\), got shape"),
    (lambda x, y: (x[:5], y), "fit: y: expected as many targets as samples in x, got 20 and 5"),
    (lambda x, y: (x, np.eye(3)[y]), "for one-hot labels use 'categorical_crossentropy'"),
    (lambda x, y: (x, y + 0.5), "fit: y: expected integer labels, got .* at position 0"),
    (lambda x, y: (x, np.where(np.arange(20) == 7, 3, y)), r"in \[0, 3\), got 3 at position 7"),
    (lambda x, y: (x, np.where(np.arange(20) == 4, -1, y)), r"in \[0, 3\), got -1 at position 4"),
    (lambda x, y: (x[:0], y[:0]), "fit: x: expected at least one sample, got none"),
    (lambda x, y: (x.astype(complex), y), "fit: x: expected an array of numbers"),
    (lambda x, y: (7, y), "fit: x: expected arrays or an iterable"),
]


@pytest.mark.parametrize(("change", "message"), BAD_DATA)
def test_fit_names_data_that_does_not_fit(change, message):
    model = cnn()
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    x, y = change(*images(20))
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(x, y, verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_evaluate_and_batches_need_samples():
    model = cnn()
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = images(4)
    for call in (model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match="x: expected at least one sample, got none"):
            call(x[:0], y[:0])
    assert model.predict(x[:0]).shape == (0, 3)


def test_fit_names_other_arguments():
    model = cnn()
    x, y = images(20)
    with pytest.raises(RuntimeError, match="fit: expected a compiled model"):
        model.fit(x, y)
    model.compile("sgd", "sparse_categorical_crossentropy")
    for options, message in [
        ({"batch_size": 0}, "batch_size: expected an integer >= 1"),
        ({"epochs": -1}, "epochs: expected an integer >= 0"),
        ({"verbose": 3}, "verbose: expected"),
        ({"validation_split": 1.5}, r"validation_split: expected a number in \[0, 1\), got 1.5"),
        ({"validation_split": 0.1, "validation_data": (x, y)}, "got both"),
        ({"validation_data": (x,)}, "validation_data: expected"),
        ({"validation_data": (x, y + 1)}, "fit: validation_data: y: expected labels in"),
        ({"sample_weight": np.ones(3)}, "sample_weight: expected one weight for each of the 20"),
        ({"sample_weight": np.full(20, np.nan)}, "sample_weight: expected finite numbers"),
        ({"class_weight": {5: 1.0}}, r"class_weight: expected classes in \[0, 3\)"),
        ({"class_weight": [1, 2, 3]}, "class_weight: expected a dict"),
        ({"steps_per_epoch": 3}, "expected at most 1 steps of 32 from 20 samples, got 3"),
        ({"callbacks": [print]}, "callbacks: expected objects of"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fit(x, y, **({"verbose": 0} | options))


def test_one_column_against_a_vector_is_refused():
    model = Sequential([layers.Dense(1, activation="sigmoid", input_shape=(4,))])
    for loss in ("binary_crossentropy", "mse"):
        model.compile("sgd", loss)
        with pytest.raises(ValueError, match=r"expected targets \(N,1\).*reshape it with y"):
            model.fit(floats(8, 4), np.zeros(8), verbose=0)
        model.fit(floats(8, 4), np.zeros((8, 1)), verbose=0)
    with pytest.raises(ValueError, match="expected targets"):
        losses.MeanSquaredError()(np.zeros(8), np.zeros((8, 1)))


def test_a_loss_of_probabilities_needs_probabilities_and_one_of_logits_logits():
    for head in (None, "relu", "sigmoid"):
        with pytest.raises(
            ValueError, match="expects probabilities, but 'dense' ends in .*softmax"
        ):
            cnn(head=head).compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(
        ValueError, match="ends in linear; end in activation='sigmoid', or use Binary"
    ):
        cnn(head=None).compile("sgd", "binary_crossentropy")
    with pytest.warns(UserWarning, match="expects logits, but 'dense' ends in softmax"):
        cnn().compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    # What the names of layers do not tell, the plan finds.
    hidden = Sequential(
        [layers.Softmax(input_shape=(4,)), layers.Reshape((2, 2)), layers.Flatten()]
    )
    hidden.compile("sgd", "categorical_crossentropy")
    with pytest.raises(ValueError, match="not made by a softmax"):
        hidden.fit(np.eye(4), np.eye(4), verbose=0)
