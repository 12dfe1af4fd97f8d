"""Save a model with its class names and preprocessing, load it, and name what is on image files."""

import tempfile
from pathlib import Path

from PIL import Image

import convlet
from convlet.data import Preprocessing
from convlet.datasets import digits

(x_train, y_train), (x_test, y_test) = digits.load_data()
pixels_train, pixels_test = digits.to_pixels(x_train), digits.to_pixels(x_test)  # 0..255

model = convlet.applications.small_cnn((8, 8, 1), classes=10, scale=1 / 255)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(pixels_train, y_train, epochs=5, verbose=2)

model.class_names = digits.CLASS_NAMES
model.preprocessing = Preprocessing((8, 8), color_mode="grayscale")

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.safetensors"
    model.save(path)
    loaded = convlet.load_model(path)

    image = Path(folder) / "digit.png"
    Image.fromarray(pixels_test[0, :, :, 0]).save(image)
    (prediction,) = loaded.classify([image])

print(f"labelled {y_test[0]}, named {prediction.name} with {prediction.confidence:.1%}")
for name, probability in prediction.top5:
    print(f"  {name}  {probability:.1%}")
