"""A small classifier and data that it can learn, for the tests of training."""

import numpy as np

from convlet import Input, Sequential, layers


def images(n, seed=0, classes=3, size=9):
    """Noisy images whose class is the bright third; easy to learn, not at once."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.standard_normal((n, size, size, 2)).astype(np.float32)
    band = size // classes
    for i, label in enumerate(y):
        x[i, label * band : (label + 1) * band] += 1
    return x, y


def cnn(classes=3, dropout=0.0, head="softmax", **options):
    return Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(5, 3, activation="relu", **options),
            layers.MaxPooling2D(),
            layers.Conv2D(6, 2, padding="same", activation="tanh"),
            layers.Dropout(dropout),
            layers.Flatten(),
            layers.Dense(classes, activation=head),
        ]
    )
