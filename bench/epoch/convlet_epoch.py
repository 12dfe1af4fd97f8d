import sys
import time

start = time.perf_counter()
import numpy as np  # noqa: E402

import convlet as keras  # noqa: E402
from convlet.layers import Conv2D, Dense, Flatten, Input, MaxPooling2D, Rescaling  # noqa: E402

print(time.perf_counter() - start)

data = np.load(sys.argv[1])
model = keras.Sequential(
    [
        Input((32, 32, 3)),
        Rescaling(1 / 255),
        Conv2D(32, 3, activation="relu"),
        MaxPooling2D(),
        Conv2D(64, 3, activation="relu"),
        MaxPooling2D(),
        Conv2D(64, 3, activation="relu"),
        Flatten(),
        Dense(64, activation="relu"),
        Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(data["images"], data["labels"], batch_size=int(sys.argv[2]), epochs=1, verbose=2)
