"""Metrics against plain formulas written another way, in one go and in batches."""

import math

import numpy as np
import pytest

import convlet
from convlet import Sequential, layers, metrics
from reference import floats

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 57)
ONE_HOT = np.eye(4, dtype=np.float32)[LABELS]
SCORES = RNG.dirichlet(np.ones(4), 57).astype(np.float32)
SCORES[::2, :] = 0.5 * SCORES[::2, :] + 0.5 * ONE_HOT[::2]  # better than chance
BITS = RNG.integers(0, 2, (57, 3))
CHANCES = np.clip(0.4 * BITS + RNG.random((57, 3)) * 0.6, 0, 1).astype(np.float32)


def top_k(k):
    return [
        label in sorted(range(4), key=lambda c: -row[c])[:k]
        for label, row in zip(LABELS, SCORES, strict=True)
    ]


def counts(truth, positive):
    """tp, fp, fn by a loop."""
    tp = fp = fn = 0
    for t, p in zip(np.ravel(truth), np.ravel(positive), strict=True):
        tp += bool(t and p)
        fp += bool(p and not t)
        fn += bool(t and not p)
    return tp, fp, fn


TP, FP, FN = counts(BITS, CHANCES > 0.5)


def f1(average):
    answers = SCORES.argmax(1)
    per_class, share = [], []
    for c in range(4):
        tp, fp, fn = counts(c == LABELS, answers == c)
        per_class.append(2 * tp / (2 * tp + fp + fn))
        share.append((c == LABELS).mean())
    if average == "macro":
        return np.mean(per_class)
    if average == "weighted":
        return np.dot(per_class, share)
    if average == "micro":
        return (answers == LABELS).mean()
    return per_class


CASES = [
    (metrics.Accuracy(), LABELS, SCORES.argmax(1), (SCORES.argmax(1) == LABELS).mean()),
    (metrics.SparseCategoricalAccuracy(), LABELS, SCORES, np.mean(top_k(1))),
    (metrics.SparseCategoricalAccuracy(), LABELS[:, None], SCORES, np.mean(top_k(1))),
    (metrics.CategoricalAccuracy(), ONE_HOT, SCORES, np.mean(top_k(1))),
    (metrics.BinaryAccuracy(), BITS, CHANCES, ((CHANCES > 0.5) == BITS).mean()),
    (metrics.BinaryAccuracy(threshold=0.3), BITS, CHANCES, ((CHANCES > 0.3) == BITS).mean()),
    (metrics.TopKCategoricalAccuracy(2), ONE_HOT, SCORES, np.mean(top_k(2))),
    (metrics.SparseTopKCategoricalAccuracy(3), LABELS, SCORES, np.mean(top_k(3))),
    (metrics.SparseTopKCategoricalAccuracy(), LABELS, SCORES, 1.0),
    (metrics.MeanSquaredError(), BITS, CHANCES, ((CHANCES - BITS) ** 2).mean()),
    (metrics.MeanAbsoluteError(), BITS, CHANCES, np.abs(CHANCES - BITS).mean()),
    (metrics.Precision(), BITS, CHANCES, TP / (TP + FP)),
    (metrics.Recall(), BITS, CHANCES, TP / (TP + FN)),
    (metrics.F1Score("macro"), ONE_HOT, SCORES, f1("macro")),
    (metrics.F1Score("macro"), LABELS, SCORES, f1("macro")),
    (metrics.F1Score("micro"), ONE_HOT, SCORES, f1("micro")),
    (metrics.F1Score("weighted"), ONE_HOT, SCORES, f1("weighted")),
    (metrics.F1Score(), ONE_HOT, SCORES, f1(None)),
    (metrics.F1Score("micro", threshold=0.5), BITS, CHANCES, 2 * TP / (2 * TP + FP + FN)),
]


@pytest.mark.parametrize(
    ("metric", "y_true", "y_pred", "expected"), CASES, ids=lambda v: getattr(v, "name", "")
)
def test_formula(metric, y_true, y_pred, expected):
    metric.reset_state()
    assert metric(y_true, y_pred) == pytest.approx(expected, rel=1e-6)
    metric.reset_state()
    for begin, end in ((0, 1), (1, 20), (20, 20), (20, 57)):
        metric.update_state(y_true[begin:end], y_pred[begin:end])
    assert metric.result() == pytest.approx(expected, rel=1e-6)
    again = metrics.get(metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
    assert again(y_true, y_pred) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.SparseCategoricalAccuracy(),
        metrics.F1Score("macro"),
        metrics.Precision(),
        metrics.Recall(),
        metrics.AUC(),
    ],
)
def test_whole_sample_weights_count_as_repetitions(metric):
    times = RNG.integers(0, 4, 57)
    metric.reset_state()
    repeated = metric(np.repeat(LABELS, times), np.repeat(SCORES, times, axis=0))
    metric.reset_state()
    assert metric(LABELS, SCORES, sample_weight=times) == pytest.approx(repeated, rel=1e-9)


def test_precision_and_recall_options():
    at_two = metrics.Precision(thresholds=[0.2, 0.7])
    expected = []
    for limit in (0.2, 0.7):
        tp, fp, _ = counts(BITS, limit < CHANCES)
        expected.append(tp / (tp + fp))
    np.testing.assert_allclose(at_two(BITS, CHANCES), expected)
    tp, fp, fn = counts(LABELS == 2, SCORES[:, 2] > 0.5)
    assert metrics.Precision(class_id=2)(ONE_HOT, SCORES) == pytest.approx(tp / (tp + fp))
    assert metrics.Recall(class_id=2)(LABELS, SCORES) == pytest.approx(tp / (tp + fn))
    assert metrics.Recall(top_k=2)(ONE_HOT, SCORES) == pytest.approx(np.mean(top_k(2)))
    assert metrics.Precision(top_k=2)(ONE_HOT, SCORES) == pytest.approx(np.mean(top_k(2)) / 2)
    assert metrics.Precision()([0, 0], [0.1, 0.2]) == 0  # nothing predicted


def roc_area(truth, scores):
    """The probability that a positive scores above a negative, ties half."""
    positive, negative = scores[truth == 1], scores[truth == 0]
    wins = (positive[:, None] > negative).sum() + 0.5 * (positive[:, None] == negative).sum()
    return wins / (len(positive) * len(negative))


def test_auc():
    truth, scores = BITS.ravel(), CHANCES.ravel()
    # On a grid between the thresholds the sum over thresholds is exact.
    grid = (np.floor(scores * 49) + 0.5) / 50
    fine = metrics.AUC(num_thresholds=2001)
    assert fine(truth, grid) == pytest.approx(roc_area(truth, grid), abs=1e-9)
    assert metrics.AUC()(truth, scores) == pytest.approx(roc_area(truth, scores), abs=0.01)
    assert metrics.AUC()([0, 1], [0.1, 0.9]) == pytest.approx(1)
    assert metrics.AUC()([1, 0], [0.1, 0.9]) == pytest.approx(0)
    # Keras' documented examples.
    assert metrics.AUC(num_thresholds=3)([0, 0, 1, 1], [0, 0.5, 0.3, 0.9]) == pytest.approx(0.75)
    perfect = metrics.AUC(curve="PR")([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert perfect == pytest.approx(1)


def test_pr_area_is_near_average_precision():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 3000)
    scores = np.clip(0.3 * truth + 0.7 * rng.random(3000), 0, 1)
    order = np.argsort(-scores)
    precision = np.cumsum(truth[order]) / np.arange(1, 3001)
    average = precision[truth[order] == 1].mean()
    assert metrics.AUC(curve="PR")(truth, scores) == pytest.approx(average, abs=0.01)


def test_confusion_matrix():
    actual, predicted = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 2]
    matrix = metrics.confusion_matrix(actual, predicted)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]  # rows are actual
    assert metrics.confusion_matrix(actual, predicted, 4).shape == (4, 4)
    scores = np.eye(5)[predicted]
    assert metrics.confusion_matrix(np.eye(5)[actual], scores).shape == (5, 5)
    assert metrics.confusion_matrix(actual, scores)[:3, :3].tolist() == matrix.tolist()
    assert metrics.confusion_matrix([], []).shape == (0, 0)
    with pytest.raises(ValueError, match=r"y_true: expected labels in \[0, 2\), got 0 to 2"):
        metrics.confusion_matrix(actual, [0] * 6, 2)
    with pytest.raises(ValueError, match="as many y_true as y_pred, got 6 and 2"):
        metrics.confusion_matrix(actual, [0, 1])
    with pytest.raises(ValueError, match="y_pred: expected integer labels"):
        metrics.confusion_matrix(actual, [0.5] * 6)


def test_classification_report():
    actual, predicted = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 2]
    report = metrics.classification_report(actual, predicted, ["a", "b", "c"], output_dict=True)
    assert report["a"] == {"precision": 0.5, "recall": 0.5, "f1-score": 0.5, "support": 2}
    assert report["b"]["precision"] == 0.5
    assert report["b"]["recall"] == 1
    assert report["c"]["f1-score"] == pytest.approx(0.8)
    assert report["accuracy"] == pytest.approx(4 / 6)
    assert report["macro avg"]["recall"] == pytest.approx((0.5 + 1 + 2 / 3) / 3)
    assert report["weighted avg"]["recall"] == pytest.approx(4 / 6)
    text = metrics.classification_report(actual, predicted, ["a", "b", "c"], digits=2)
    assert [line.split() for line in text.splitlines()][2] == ["a", "0.50", "0.50", "0.50", "2"]
    assert "accuracy" in text
    assert metrics.classification_report([], [], ["a", "b"], output_dict=True)["accuracy"] == 0


def test_errors_are_named():
    for make, message in [
        (lambda: metrics.F1Score("mean"), "average: expected None, 'micro'"),
        (lambda: metrics.F1Score(threshold=2), "threshold"),
        (lambda: metrics.AUC(1), "num_thresholds: expected at least 2"),
        (lambda: metrics.AUC(curve="DET"), "curve: expected 'ROC' or 'PR'"),
        (lambda: metrics.TopKCategoricalAccuracy(0), "k: expected a positive integer"),
        (lambda: metrics.Precision(thresholds=1.5), "thresholds: expected numbers in"),
        (lambda: metrics.BinaryAccuracy(threshold=math.nan), "threshold: expected a number"),
        (lambda: metrics.AUC()([0, 1], [0.5, 1.5]), r"expected y_pred in \[0, 1\]"),
        (lambda: metrics.CategoricalAccuracy()(LABELS, SCORES), r"expected y_true of shape"),
        (lambda: metrics.SparseCategoricalAccuracy()(ONE_HOT, SCORES), r"expected labels \(N,\)"),
        (lambda: metrics.get("jaccard"), "metrics: expected 'accuracy'"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_metrics_in_a_model_are_those_of_its_predictions():
    x = floats(57, 6)
    model = Sequential([layers.Dense(4, activation="softmax", input_shape=(6,))])

    class Largest(metrics.Metric):
        """A metric of the user's own."""

        def reset_state(self):
            self.value = 0.0

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.value = max(self.value, float(y_pred.max()))

        def result(self):
            return self.value

    def label_mean(y_true, y_pred):
        return y_true

    model.compile(
        "sgd",
        "sparse_categorical_crossentropy",
        metrics=[
            "accuracy",
            "sparse_top_k_categorical_accuracy",
            metrics.F1Score("macro"),
            metrics.AUC(name="area"),
            Largest("largest"),
            label_mean,
        ],
    )
    logs = model.evaluate(x, LABELS, batch_size=10, verbose=0, return_dict=True)
    outputs = model.predict(x)
    assert logs["accuracy"] == pytest.approx((outputs.argmax(1) == LABELS).mean())
    assert logs["sparse_top_k_categorical_accuracy"] == 1
    assert logs["f1_score"] == pytest.approx(metrics.F1Score("macro")(LABELS, outputs))
    assert logs["area"] == pytest.approx(metrics.AUC()(LABELS, outputs))
    assert logs["largest"] == pytest.approx(outputs.max())
    assert logs["label_mean"] == pytest.approx(LABELS.mean())
    history = model.fit(x, LABELS, verbose=0, batch_size=57).history
    # One batch: the metrics of training are of the outputs before the step.
    assert history["f1_score"] == pytest.approx([logs["f1_score"]])


def test_an_accuracy_object_knows_what_the_plan_counted():
    accuracy = metrics.SparseCategoricalAccuracy(name="right")
    model = Sequential([layers.Softmax(input_shape=(4,))])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[accuracy])
    logs = model.evaluate(SCORES, LABELS, verbose=0, return_dict=True)
    assert logs["right"] == accuracy.result() == pytest.approx(np.mean(top_k(1)))


def test_unknown_functions_and_classes():
    assert isinstance(metrics.get("F1Score"), metrics.F1Score)
    assert isinstance(metrics.get(metrics.AUC), metrics.AUC)
    assert metrics.serialize(metrics.get(lambda a, b: a)) is None
    assert isinstance(convlet.metrics.get("mse"), metrics.MeanSquaredError)
