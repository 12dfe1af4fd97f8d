"""Folds and crossval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convlet
from convlet import layers
from convlet.data.folds import assign_folds
from pictures import pixels


@given(st.lists(st.integers(0, 3), min_size=5, max_size=80), st.integers(2, 5), st.integers(0, 9))
def test_folds_have_the_same_share_of_every_class(labels, folds, seed):
    assigned = assign_folds(len(labels), folds, labels, seed=seed)
    table = np.zeros((folds, 4), int)
    np.add.at(table, (assigned, labels), 1)
    assert (np.ptp(table, axis=0) <= 1).all()
    assert np.ptp(table.sum(axis=1)) <= 4
    assert set(assigned) == set(range(folds)) or len(labels) < 4 * folds


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=80),
    st.integers(2, 4),
)
def test_a_group_is_in_one_fold(samples, folds):
    labels, groups = zip(*samples, strict=True)
    names = [f"patient {g}" for g in groups]
    if len(set(groups)) < folds:
        with pytest.raises(ValueError, match=f"expected at most {len(set(groups))} for"):
            assign_folds(len(samples), folds, labels, names)
        return
    assigned = assign_folds(len(samples), folds, labels, names)
    for group in set(groups):
        assert len({f for f, g in zip(assigned, groups, strict=True) if g == group}) == 1


def test_groups_are_spread_evenly():
    groups = np.repeat(np.arange(40), 5)
    labels = np.repeat(np.arange(40) % 2, 5)
    assigned = assign_folds(200, 4, labels, groups)
    table = np.zeros((4, 2), int)
    np.add.at(table, (assigned, labels), 1)
    assert table.tolist() == [[25, 25]] * 4


def test_the_seed_decides():
    first = assign_folds(30, 3, seed=1)
    np.testing.assert_array_equal(assign_folds(30, 3, seed=1), first)
    assert assign_folds(30, 3, seed=2).tolist() != first.tolist()
    assert np.bincount(first).tolist() == [10, 10, 10]


def build():
    convlet.set_random_seed(0)
    net = convlet.Sequential(
        [layers.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2, activation="softmax")]
    )
    net.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return net


X, Y = pixels(30, 4, 4, 1), np.arange(30) % 2


def test_crossval_is_fit_and_evaluate_per_fold():
    result = convlet.crossval(build, X, Y, folds=3, epochs=2, batch_size=8, seed=4)
    assigned = assign_folds(30, 3, Y, seed=4)
    for fold in range(3):
        net = build()
        net.fit(X[assigned != fold], Y[assigned != fold], batch_size=8, epochs=2, verbose=0)
        held = assigned == fold
        expected = net.evaluate(X[held], Y[held], 8, verbose=0, return_dict=True)
        assert result.folds[fold] == expected
    accuracies = [fold["accuracy"] for fold in result.folds]
    assert result.mean["accuracy"] == pytest.approx(np.mean(accuracies))
    assert result.std["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert result.sizes == [10, 10, 10]
    lines = str(result).splitlines()
    assert lines[0].split() == ["fold", "samples", "loss", "accuracy"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "mean", "±"]
    assert len({len(line) for line in lines}) == 1


def test_weights_are_cut_with_the_samples():
    weights = np.linspace(0, 1, 30)
    result = convlet.crossval(build, X, Y, 2, sample_weight=weights, seed=1)
    assigned = assign_folds(30, 2, Y, seed=1)
    net, train = build(), assigned != 0
    net.fit(X[train], Y[train], sample_weight=weights[train], verbose=0)
    held = assigned == 0
    assert result.folds[0]["loss"] == net.evaluate(X[held], Y[held], verbose=0)[0]


def test_one_hot_targets_are_stratified():
    def build_one_hot():
        net = build()
        net.compile("sgd", "categorical_crossentropy")
        return net

    y = np.eye(2, dtype=np.float32)[np.repeat([0, 1], [24, 6])]
    seen = []

    class Count(convlet.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(1)

    result = convlet.crossval(build_one_hot, X, y, folds=3, callbacks=[Count()])
    assert len(seen) == len(result.folds) == 3


def test_own_folds_and_groups_that_leak():
    own = np.arange(30) // 10
    assert convlet.crossval(build, X, Y, folds=own).sizes == [10, 10, 10]
    groups = [f"plant {i // 5}" for i in range(30)]
    assert len(convlet.crossval(build, X, Y, folds=own, groups=groups).folds) == 3
    groups[12] = "plant 5"
    with pytest.raises(
        ValueError, match=r"^crossval: folds: the group plant 5 leaks: it is in the folds \[1, 2\]"
    ):
        convlet.crossval(build, X, Y, folds=own, groups=groups)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds: expected an integer of at least 2, got 1"),
        ({"folds": 2.5}, "folds: expected an integer of at least 2"),
        ({"folds": 31}, "folds: expected at most 30 for 30 samples, got 31"),
        ({"folds": 3, "groups": [0, 1] * 15}, "folds: expected at most 2 for 2 groups, got 3"),
        ({"groups": [1, 2]}, "groups: expected one for each of 30 samples"),
        ({"folds": [0, 1]}, r"folds: expected a number, or integers \(30,\)"),
        ({"folds": [0] * 30}, "folds: expected at least two"),
        ({"validation_split": 0.1}, "expected no validation data"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=f"^crossval: {message}"):
        convlet.crossval(build, X, Y, **options)


def test_wrong_data_and_models_are_named():
    with pytest.raises(ValueError, match="as many targets as samples, got 4 and 30"):
        convlet.crossval(build, X, Y[:4])
    with pytest.raises(TypeError, match="build_model: expected a compiled model, got None"):
        convlet.crossval(lambda: None, X, Y)
