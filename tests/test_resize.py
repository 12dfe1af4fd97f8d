"""resize_bilinear: every instruction set gives Pillow's bits; errors."""

import numpy as np
import pytest
from PIL import Image

from convlet import _core
from pictures import pixels

SIZES = [(1, 1), (2, 3), (5, 17), (19, 66), (99, 31), (256, 224), (3, 300)]


@pytest.mark.parametrize("to", SIZES)
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_bits_are_pillows(shape, to, channels, isa):
    x = pixels(*shape, channels)
    x[: shape[0] // 2] = 255  # the largest sums
    y = np.empty((*to, channels), np.uint8)
    _core.resize_bilinear(x, y)
    image = Image.fromarray(x[..., 0] if channels == 1 else x)
    # One axis at a time: versions of Pillow differ in which they take first.
    first = (shape[1], to[0]) if to[0] * shape[1] < shape[0] * to[1] else (to[1], shape[0])
    for size in (first, to[::-1]):
        image = image.resize(size, Image.Resampling.BILINEAR)
    expected = np.asarray(image)
    np.testing.assert_array_equal(y.squeeze(), expected.squeeze())


def test_inputs_that_are_not_contiguous():
    x = pixels(40, 30, 3)
    y, z = np.empty((2, 11, 7, 3), np.uint8)
    for view in (x[::-1, ::2], x.swapaxes(0, 1), x[..., ::-1]):
        _core.resize_bilinear(view, y)
        _core.resize_bilinear(np.ascontiguousarray(view), z)
        np.testing.assert_array_equal(y, z)


@pytest.mark.parametrize(
    ("x", "out", "message"),
    [
        (pixels(4, 4), pixels(4, 4, 1), r"\(H,W,C\)"),
        (pixels(4, 4, 2), pixels(4, 4, 2), "C=1 or C=3, got C=2"),
        (pixels(0, 4, 3), pixels(4, 4, 3), r"in 1\.\.32767, got 0"),
        (pixels(4, 4, 3), pixels(4, 0, 3), r"in 1\.\.32767, got 0"),
        (pixels(4, 40000, 1), pixels(4, 4, 1), r"in 1\.\.32767, got 40000"),
        (pixels(4, 4, 3), pixels(4, 4, 1), "out"),
        (pixels(4, 4, 3), pixels(4, 8, 3)[:, ::2], "out to be a writeable C-contiguous uint8"),
        (pixels(4, 4, 3), np.zeros((4, 4, 3), np.float32), "out to be a writeable C-contiguous"),
        (np.zeros((4, 4, 3), np.float32), pixels(4, 4, 3), "x"),
    ],
)
def test_errors(x, out, message):
    with pytest.raises((ValueError, TypeError), match=f"^resize_bilinear: .*{message}"):
        _core.resize_bilinear(x, out)
    both = pixels(4, 4, 3)
    with pytest.raises(ValueError, match="apart from the memory of x"):
        _core.resize_bilinear(both, both)
