"""A recipe for small images, from docs/training.md, on real digits: digits_recipe.py [trials]

Five trials, each with its own split: 99.4 % to 99.7 % of 359 held-out images, 99.7 % on average,
after 20 to 33 s each on two AMD EPYC cores (Zen 3) that had other work too.
"""

import sys
from time import perf_counter

import convlet as keras
from convlet import layers, losses, optimizers
from convlet.data import Augmentation

EPOCHS, WARMUP, BATCH = 40, 4, 32
moves = Augmentation(shift=1, fill="constant")


def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 16),  # values are 0..16
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Conv2D(128, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


for trial in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
    (x, y), (x_test, y_test) = keras.datasets.digits.load_data(seed=trial)
    keras.set_random_seed(trial)
    updates = -(-len(x) // BATCH)  # in an epoch
    rate = optimizers.schedules.CosineDecay(
        1e-4, (EPOCHS - WARMUP) * updates, warmup_target=4e-3, warmup_steps=WARMUP * updates
    )
    model = network()
    optimizer = optimizers.AdamW(rate, weight_decay=0.01, use_ema=True)
    loss = losses.SparseCategoricalCrossentropy(label_smoothing=0.1)
    model.compile(optimizer, loss, metrics=["accuracy"])
    start = perf_counter()
    model.fit(moves.flow(x, y, BATCH, seed=trial), epochs=EPOCHS, verbose=0)
    accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
    print(f"split {trial}: held-out accuracy {accuracy:.4f} after {perf_counter() - start:.1f} s")
