"""MixUp and CutMix: what is mixed, how labels follow, and that the same numbers give the same
batches."""

import numpy as np
import pytest

import convlet
from classifiers import cnn, images
from convlet.data import CutMix, MixUp, RandomChoice
from convlet.utils import to_categorical


def one_batch(mixing, x, y, **options):
    return next(iter(mixing(x, y, batch_size=len(x), **options)))


def counted(n=64, size=8, channels=3, dtype=np.float32):
    """Image i is i everywhere, and so is its label: what is mixed shows."""
    x = np.broadcast_to(np.arange(n).reshape(-1, 1, 1, 1), (n, size, size, channels))
    return x.astype(dtype), np.arange(n)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_mixup_mixes_labels_as_it_mixes_images(dtype):
    x, y = counted(dtype=dtype)
    mixed, soft = one_batch(MixUp(0.4), x, y, num_classes=64)
    assert mixed.dtype == soft.dtype == np.float32
    assert mixed.shape == x.shape
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
    assert ((soft > 0).sum(1) <= 2).all()
    # The mean of the labels' numbers is the value of every pixel.
    np.testing.assert_allclose(mixed[:, 0, 0, 0], soft @ np.arange(64), rtol=1e-5, atol=1e-4)
    assert (mixed == mixed[:, :1, :1, :1]).all()
    assert len(np.unique(soft.max(1))) > 20  # each sample has its own share


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_cutmix_counts_the_pixels(dtype):
    x, y = counted(dtype=dtype)
    mixed, soft = one_batch(CutMix(), x, y, num_classes=64)
    assert mixed.dtype == dtype
    for image, label in zip(mixed, soft, strict=True):
        values, counts = np.unique(image[:, :, 0], return_counts=True)
        shares = np.zeros(64)
        shares[values.astype(int)] = counts / 64
        np.testing.assert_allclose(label, shares, atol=1e-6)
        if len(values) == 2:  # one of them is a rectangle
            rectangles = 0
            for value in values:
                rows, columns = np.nonzero(image[:, :, 0] == value)
                area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
                rectangles += area == len(rows)
            assert rectangles >= 1
    assert (soft.max(1) < 1).mean() > 0.5
    assert (mixed == mixed[:, :, :, :1]).all()


def test_the_shares_are_drawn_from_beta():
    x = np.zeros((4000, 1), np.float32)
    for alpha in (0.2, 1.0, 5.0):
        share = MixUp(alpha).mix(x, np.random.default_rng(0))[2]
        # Variance of Beta(a, a): 1 / (4 (2a + 1)).
        assert share.mean() == pytest.approx(0.5, abs=0.03)
        assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    size = np.zeros((4000, 32, 32), np.float32)
    kept = CutMix(1.0).mix(size, np.random.default_rng(0))[2]
    assert 0.5 < kept.mean() < 0.75  # less than half is cut out: rectangles end at the edges


@pytest.mark.parametrize("mixing", [MixUp(), CutMix(), RandomChoice([MixUp(), CutMix()])])
def test_seed_epoch_and_step_decide(mixing):
    x, y = images(40)

    def batches(seed, epoch):
        mixed = mixing(x, y, num_classes=3, batch_size=16, seed=seed)
        mixed.epoch = epoch
        return list(mixed)

    first = batches(1, 0)
    assert [len(b[1]) for b in first] == [16, 16, 8]
    for a, b in zip(first, batches(1, 0), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    for other in (batches(2, 0), batches(1, 1)):
        assert not np.array_equal(first[0][0], other[0][0])
    running = mixing(x, y, num_classes=3, batch_size=16, seed=1)
    epochs = [list(running) for _ in range(2)]
    assert running.epoch == 2
    for a, b in zip(epochs[1], batches(1, 1), strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_every_sample_is_in_an_epoch_once():
    x, y = counted(50)
    labels = np.concatenate(
        [soft for _, soft in MixUp(1e-6)(x, y, num_classes=50, batch_size=16)]
    )  # so small an alpha gives whole samples, half of them swapped
    np.testing.assert_allclose(labels.max(1), 1, atol=1e-3)
    assert len(MixUp()(x, y, num_classes=50, batch_size=16)) == 4


def test_training_with_mixed_batches():
    x, y = images(96)
    model = cnn()
    model.compile(convlet.optimizers.Adam(0.005), "categorical_crossentropy", metrics=["accuracy"])
    mixed = RandomChoice([MixUp(0.2), CutMix()])(x, y, num_classes=3, batch_size=16)
    held = images(60, seed=9)
    history = model.fit(
        mixed, epochs=20, validation_data=(held[0], to_categorical(held[1], 3)), verbose=0
    )
    assert history.history["val_accuracy"][-1] > 0.85
    assert mixed.epoch == 20


def test_mixing_what_is_mixed_and_other_iterables():
    x, y = images(32)
    plain = [(x[:16], to_categorical(y[:16], 3)), (x[16:], to_categorical(y[16:], 3))]
    twice = CutMix()(MixUp()(plain))
    assert len(twice) == 2
    batches = list(twice)
    for _, soft in batches:
        np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)
    twice.epoch = 0
    for a, b in zip(batches, twice, strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_sample_weights_weigh_both_labels():
    """The weighted loss of a mixed sample is the weighted sum of the losses of both its labels."""
    x, y = images(8)
    weight = np.linspace(0, 2, 8).astype(np.float32)
    mixing = MixUp(1.0)
    _, soft, both = next(iter(mixing([(x, to_categorical(y, 3), weight)])))
    draw = convlet.utils.seeds.generator(0, 0, 0)
    _, partner, share = mixing.mix(x, draw)
    rest = 1 - share
    one_hot = to_categorical(y, 3)
    expected = (share * weight)[:, None] * one_hot + (rest * weight[partner])[:, None] * one_hot[
        partner
    ]
    np.testing.assert_allclose(both[:, None] * soft, expected, rtol=1e-5, atol=1e-6)


def test_image_datasets_keep_what_they_know():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 9, 9, 2), np.uint8)
    rgb = np.concatenate([pixels, pixels[..., :1]], axis=3)
    data = convlet.data.ImageDataset(
        rgb,
        np.arange(20) % 3,
        preprocessing=convlet.data.Preprocessing((9, 9), "rgb", "stretch", 1.0),
        class_names=["a", "b", "c"],
        batch_size=8,
    )
    mixed = MixUp()(data)
    x, soft = next(iter(mixed))
    assert soft.shape == (8, 3)
    assert x.dtype == np.float32
    assert mixed.class_names == ["a", "b", "c"]
    assert len(mixed) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, y: MixUp(0), "MixUp: alpha: expected a number above 0, got 0"),
        (lambda x, y: CutMix("1"), "CutMix: alpha: expected a number above 0, got '1'"),
        (lambda x, y: RandomChoice([]), "RandomChoice: mixings: expected a list"),
        (lambda x, y: list(MixUp()(x, y)), "num_classes: expected a number for integer labels"),
        (lambda x, y: list(MixUp()(x, y, num_classes=2)), r"labels in \[0, 2\)"),
        (lambda x, y: list(MixUp()(x, y[:5], num_classes=3)), "as many labels as samples"),
        (lambda x, y: list(MixUp()(x, y, batch_size=0)), "batch_size: expected a positive"),
        (lambda x, y: list(CutMix()(x[:, :, 0, 0], y, num_classes=3)), "expected images"),
        (lambda x, y: list(MixUp()([x])), "expected batches"),
        (lambda x, y: list(MixUp()([(x, y + 0.5)], num_classes=3)), "integer labels, got"),
        (lambda x, y: list(MixUp()([(x, x)])), "probabilities .* of one task, got shape"),
    ],
)
def test_bad_data_is_named(make, message):
    x, y = images(16)
    with pytest.raises(ValueError, match=message):
        make(x, y)


def test_sparse_losses_say_what_to_use_instead():
    x, y = images(16)
    model = cnn()
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="use 'categorical_crossentropy'"):
        model.fit(MixUp()(x, y, num_classes=3), verbose=0)
