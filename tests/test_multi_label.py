"""Several labels per image, several outputs with names, thresholds, and heads on one network."""

import numpy as np
import pytest

import convlet
from convlet import Input, Model, Sequential, applications, layers, metrics
from convlet.models.classify import Labels, Prediction
from reference import floats


def tags(activation="sigmoid", labels=3):
    return Sequential([Input((4,)), layers.Dense(labels, activation=activation, name="tags")])


def probabilities_are(model, rows):
    """Gives the model weights so that input i (one-hot) has the probabilities of row i."""
    rows = np.asarray(rows, np.float32)
    kernel = np.zeros((4, rows.shape[1]), np.float32)
    kernel[: len(rows)] = np.log(rows / (1 - rows))
    model.set_weights([kernel, np.zeros(rows.shape[1], np.float32)])
    return np.eye(4, dtype=np.float32)[: len(rows)]


def test_every_label_that_reaches_its_threshold_is_named():
    model = tags()
    x = probabilities_are(model, [[0.9, 0.6, 0.1], [0.2, 0.3, 0.4]])
    model.class_names = ["cat", "dog", "bird"]
    both = model.classify(x)
    assert [found.names for found in both] == [["cat", "dog"], []]
    assert isinstance(both[0], Labels)
    assert both[1].probabilities == pytest.approx({"cat": 0.2, "dog": 0.3, "bird": 0.4}, rel=1e-5)
    model.thresholds = [0.95, 0.25, 0.35]
    assert [found.names for found in model.classify(x)] == [["dog"], ["bird", "dog"]]
    model.thresholds = 0.15
    assert model.classify(x)[0].names == ["cat", "dog"]
    assert model.thresholds == [0.15] * 3


def test_logits_of_a_binary_cross_entropy_are_labels_too():
    model = tags(activation=None)
    x = probabilities_are(model, [[0.9, 0.6, 0.1]])
    model.class_names = ["cat", "dog", "bird"]
    model.compile("sgd", convlet.losses.BinaryCrossentropy(from_logits=True))
    assert model.classify(x)[0].names == ["cat", "dog"]


def test_names_and_thresholds_travel_with_the_model(tmp_path):
    model = tags()
    x = probabilities_are(model, [[0.9, 0.6, 0.1]])
    model.class_names, model.thresholds = ["cat", "dog", "bird"], [0.95, 0.5, 0.05]
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert loaded.thresholds == [0.95, 0.5, 0.05]
    assert loaded.classify(x) == model.classify(x)


def two_outputs():
    image = Input((4,))
    outputs = {
        "colour": layers.Dense(3, activation="softmax", name="colour")(image),
        "tags": layers.Dense(2, activation="sigmoid", name="tags")(image),
    }
    return Model(image, outputs)


def test_several_outputs_are_named_by_output(tmp_path):
    model = two_outputs()
    model.class_names = {"colour": ["red", "green", "blue"], "tags": ["round", "big"]}
    model.thresholds = {"tags": [0.0, 1.0]}
    x = floats(5, 4)
    found = model.classify(x)
    colours, labels = model.predict(x).values()
    for i, both in enumerate(found):
        assert isinstance(both["colour"], Prediction)
        assert both["colour"].name == ["red", "green", "blue"][colours[i].argmax()]
        assert both["tags"].names == ["round"]
        assert both["tags"].probabilities["big"] == float(labels[i, 1])
    model.save(tmp_path / "m.safetensors")
    assert convlet.load_model(tmp_path / "m.safetensors").classify(x) == found


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("class_names", {"tags": ["round"]}, "two names or more"),
        ("class_names", {"shape": ["round", "big"]}, "names of outputs"),
        ("class_names", {"tags": ["a", "b", "c"]}, "2 names for the output"),
        ("thresholds", {"tags": [0.5]}, "numbers in .0, 1., one or 2"),
        ("thresholds", {"tags": 1.5}, "numbers in .0, 1., one or 2"),
        ("thresholds", {"tags": float("nan")}, "numbers in .0, 1., one or 2"),
        ("thresholds", {"size": 0.5}, "names of outputs"),
    ],
)
def test_names_and_thresholds_that_do_not_fit(attribute, value, message):
    with pytest.raises(ValueError, match=f"{attribute}.*{message}"):
        setattr(two_outputs(), attribute, value)


def test_a_list_of_names_does_not_do_for_several_outputs():
    model = two_outputs()
    model.class_names = ["red", "green", "blue"]
    with pytest.raises(ValueError, match=r"classify.*class_names: expected \{output name: names\}"):
        model.classify(floats(1, 4))


def f1(truth, chosen):
    return 2 * (truth & chosen).sum() / (truth.sum() + chosen.sum())


@pytest.mark.parametrize("metric", ["f1", "accuracy"])
def test_no_threshold_does_better_than_the_chosen_one(metric):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (60, 4))
    p = np.clip(np.round(0.3 * truth + rng.random((60, 4)), 1), 0, 1)  # with many ties
    chosen = metrics.choose_thresholds(truth, p, metric)
    assert chosen.dtype == np.float32
    for i in range(4):
        yes = truth[:, i] == 1
        score = f1 if metric == "f1" else lambda t, c: (t == c).mean()
        best = max(score(yes, p[:, i] >= t) for t in np.linspace(0, 1.01, 203))
        assert score(yes, p[:, i] >= chosen[i]) == pytest.approx(best)


def test_thresholds_of_labels_that_are_missing_or_never_there():
    truth = np.array([[1, 0, np.nan], [0, 0, 1], [np.nan, 0, 0]])
    p = np.array([[0.6, 0.9, 0.99], [0.2, 0.1, 0.7], [0.9, 0.2, 0.3]])
    assert metrics.choose_thresholds(truth, p) == pytest.approx([0.4, 0.5, 0.5])


@pytest.mark.parametrize(
    ("truth", "p", "metric", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 2)), "f1", "of one shape"),
        (np.full((2, 2), 2), np.ones((2, 2)), "f1", "y_true: expected 0, 1 or NaN"),
        (np.ones((2, 2)), np.full((2, 2), 1.5), "f1", r"probabilities: expected numbers in \[0"),
        (np.ones((2, 2)), np.ones((2, 2)), "auc", "metric: expected 'f1'"),
    ],
)
def test_thresholds_cannot_be_chosen_from(truth, p, metric, message):
    with pytest.raises(ValueError, match=message):
        metrics.choose_thresholds(truth, p, metric)


def test_heads_on_the_features_of_one_network():
    model = applications.multi_task(
        applications.small_cnn, (16, 16, 3), {"colour": 3, "shape": 4}, scale=1 / 255
    )
    assert model.output_names == ["colour", "shape"]
    assert [output.shape for output in model.outputs] == [(None, 3), (None, 4)]
    one = applications.small_cnn((16, 16, 3), 2)
    features = one.layers[-1].weights[0].shape[0]
    assert model.count_params() == one.count_params() + features * 5 + 5
    with pytest.raises(ValueError, match="ends in a dense layer, got nin"):
        applications.multi_task(applications.nin, (64, 64, 3), {"a": 2, "b": 2})
    with pytest.raises(ValueError, match="at least one"):
        applications.multi_task(applications.small_cnn, (16, 16, 3), {})
