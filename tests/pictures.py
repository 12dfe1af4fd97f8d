"""Pictures for tests: random pixels, encoded images, folders of them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    """Random uint8 values."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) of slow waves, which JPEG keeps well."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((seed + 1 + c) * x / 40 + y / (30 + 9 * c)) for c in range(3)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, format: str = "PNG", **options) -> bytes:
    """The bytes of an image file."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def write_images(folder: Path, classes: dict[str, int], size=(5, 7), seed=0) -> None:
    """A folder per class with so many random PNG files."""
    rng = np.random.default_rng(seed)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            x = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(x).save(folder / name / f"{i}.png")
