"""Balanced draws and balanced weights."""

import numpy as np
import pytest

import convlet
from convlet import layers
from convlet.data import BalancedSampler, balanced_weights
from convlet.data.sampling import imbalance
from pictures import pixels

LABELS = np.repeat([0, 1, 2], [80, 15, 5])


def test_an_epoch_draws_every_class_equally_often():
    sampler = BalancedSampler(LABELS, seed=1)
    for epoch in range(4):
        drawn = sampler.epoch(epoch)
        assert len(drawn) == len(sampler) == 100
        counts = np.bincount(LABELS[drawn])
        assert sorted(counts) == [33, 33, 34]
        times = np.bincount(drawn, minlength=100)
        assert times[:80].max() == 1  # of many, each at most once
        for label in (1, 2):  # of few, each equally often
            assert np.ptp(times[label == LABELS]) <= 1


def test_draws_depend_on_seed_and_epoch_alone():
    first = BalancedSampler(LABELS, seed=1).epoch(3)
    np.testing.assert_array_equal(BalancedSampler(LABELS, seed=1).epoch(3), first)
    assert BalancedSampler(LABELS, seed=1).epoch(4).tolist() != first.tolist()
    assert BalancedSampler(LABELS, seed=2).epoch(3).tolist() != first.tolist()
    seen = set()
    for epoch in range(12):
        seen.update(BalancedSampler(LABELS).epoch(epoch).tolist())
    assert len(seen) == 100  # nothing is left out for ever


def test_missing_labels_and_empty_classes_are_never_drawn():
    sampler = BalancedSampler([-1, 3, 3, -1, 7], seed=0)
    assert sorted(sampler.epoch(0)) in ([1, 2, 4], [1, 4, 4], [2, 4, 4])
    assert BalancedSampler([-1, -1]).epoch(0).tolist() == []
    for wrong in ([[0, 1]], [0.5]):
        with pytest.raises(ValueError, match=r"labels: expected integers \(N,\)"):
            BalancedSampler(wrong)


def test_balanced_weights():
    weights = balanced_weights(LABELS, 4)
    assert weights == {0: 100 / 240, 1: 100 / 45, 2: 100 / 15}
    np.testing.assert_allclose(np.mean([weights[c] for c in LABELS]), 1)
    assert balanced_weights([0, 0, -1, 1, 1], 2) == {0: 1.0, 1: 1.0}


def test_imbalance_is_put_into_words():
    names = ["ant", "bee", "cow"]
    assert imbalance(LABELS, names) == "uneven classes: ant has 80 images, cow 5"
    assert imbalance([0, 0, 1, 2], names) is None
    assert imbalance([0, 0, 1], names) == "uneven classes: ant has 2 images, cow 0"


@pytest.mark.parametrize("one_hot", [False, True])
def test_fit_with_balanced_class_weight(one_hot):
    x, labels = pixels(100, 4, 4, 1), LABELS
    y = np.eye(3, dtype=np.float32)[labels] if one_hot else labels

    def trained(**options):
        convlet.set_random_seed(0)
        net = convlet.Sequential(
            [layers.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3, activation="softmax")]
        )
        loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
        net.compile("sgd", loss)
        net.fit(x, y, verbose=0, **options)
        return net.get_weights()

    expected = trained(class_weight=balanced_weights(labels, 3))
    for a, b in zip(trained(class_weight="balanced"), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(trained(), expected, strict=True))


def test_balanced_class_weight_needs_labels():
    x, y = pixels(8, 4, 4, 1), np.arange(8) % 2
    net = convlet.Sequential(
        [layers.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2, activation="softmax")]
    )
    net.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="class_weight: expected a dict, None or 'balanced'"):
        net.fit(x, y, class_weight="even", verbose=0)
    with pytest.raises(ValueError, match="'balanced': expected class labels in y, or an ImageD"):
        net.fit([(x, y)].__iter__(), class_weight="balanced", verbose=0)


def test_augmented_batches_of_a_sampler():
    x, sampler = pixels(100, 6, 6, 1), BalancedSampler(LABELS, seed=3)
    augmentation = convlet.data.Augmentation(shift=0.4)
    batches = augmentation.flow(x, LABELS, 32, seed=5, sampler=sampler)
    assert len(batches) == 4
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    drawn = BalancedSampler(LABELS, seed=3).epoch(0)
    np.testing.assert_array_equal(labels, LABELS[drawn])
    # An image that is drawn several times is not changed in the same way each time.
    often = np.flatnonzero(drawn == np.bincount(drawn).argmax())
    assert len(often) > 3
    assert len({images[i].tobytes() for i in often}) > 1
    np.testing.assert_array_equal(
        images[:32], next(iter(augmentation.flow(x, LABELS, 32, seed=5, sampler=sampler)))[0]
    )
