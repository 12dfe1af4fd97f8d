"""UCI Optical Recognition of Handwritten Digits: 1,797 real 8x8 images, inside the package.

Source and licence are in digits.md beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convlet.data.split import stratified_split

CLASS_NAMES = [str(digit) for digit in range(10)]
MAX_VALUE = 16

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def load_data(test_split: float = 0.2, seed: int = 0) -> tuple[Part, Part]:
    """((x_train, y_train), (x_test, y_test)), a stratified split that `seed` draws.

    x: uint8 (N,8,8,1); values are 0..16, not 0..255: divide by 16, or see `to_pixels`.
    y: uint8 (N,) the digit. test_split: share of each digit that is held out, in [0, 1).
    Raises ValueError for another test_split.
    """
    x, y = load_all()
    train, test = stratified_split(y, test_split, seed)
    return (x[train], y[train]), (x[test], y[test])


def load_all() -> Part:
    """All images and labels, (1797,8,8,1) and (1797,), in the published order."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        return file["images"][..., None], file["labels"]


def to_pixels(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values 0..16 spread to grey pixels 0..255, rounded: the range of image files."""
    return np.rint(x * (255 / MAX_VALUE)).astype(np.uint8)
