"""Single tiles and boxes by the instructions of sm_90a, in every layout: what a product reads from
shared memory and what a copy puts there, by the tables of the PTX manual. In the emulator; with
`--device cuda` on the GPU, where a wrong bit of a descriptor shows here before anything else."""

import ctypes

import numpy as np
import pytest

import device_tests
from simt.library import Emulator, build_bugs, build_for_gpu

SWIZZLES = {"none": 0, "32B": 1, "64B": 2, "128B": 3}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if device_tests.device() == "cuda":
        path = tmp_path_factory.mktemp("sm90") / "bugs_sm90.so"
        architecture = "-gencode=arch=compute_90a,code=sm_90a"
        yield ctypes.CDLL(str(build_for_gpu(path, "bugs_sm90.cu", architecture)))
        return
    emulator = Emulator(build_bugs())
    emulator.options()
    yield emulator.library
    assert emulator.findings() == ""


def call(function, *arguments):
    """With integers, lists of them as int32, and arrays as they are."""
    arrays = [np.array(a, np.int32) if isinstance(a, (list, tuple)) else a for a in arguments]
    function(*(a if isinstance(a, int) else ctypes.c_void_p(a.ctypes.data) for a in arrays))


def bits(values):
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def swizzled(piece, swizzle):
    """The place of a piece of 16 bytes: Swizzle<swizzle, 4, 3>."""
    return piece ^ (piece >> 3 & (1 << swizzle) - 1)


class Factor:
    """A matrix (lines, 16 terms) as the manual's canonical layouts put it into shared memory; the
    product reads its terms from 16 * chunk on where lines are longer than that."""

    def __init__(self, values, swizzle, transposed, chunk=0):
        lines, terms = values.shape
        width = 1 << swizzle  # pieces of 16 bytes in a line
        i, k = np.meshgrid(np.arange(lines), np.arange(terms) + 16 * chunk, indexing="ij")
        first = 0
        if transposed and swizzle:
            leading, stride = 2 * 128 * width, 128 * width
            piece = i // 8 % width + i // (8 * width) * leading // 16
            piece += k % 8 * width + k // 8 * stride // 16
        elif transposed:
            leading, stride = 16 * lines, 128
            piece = i // 8 * stride // 16 + k % 8 + k // 8 * leading // 16
        elif swizzle:
            leading, stride = 0, 128 * width
            piece = i % 8 * width + i // 8 * stride // 16 + k // 8
            first = 32 * chunk
        else:
            leading, stride = 128, 256
            piece = i % 8 + i // 8 * stride // 16 + k // 8 * leading // 16
        place = swizzled(piece, swizzle) * 8 + (i if transposed else k) % 8
        self.image = np.full(-(-place.max() // 512) * 512, 0x7FC0, np.uint16)  # NaN beside it
        self.image[place] = bits(values)
        self.description = [transposed, swizzle, self.image.nbytes, first, leading, stride]


def product(library, a, b, columns):
    d = np.zeros((128, columns // 2), np.float32)
    call(library.sm90_tile, columns, a.description, a.image, b.description, b.image, d)
    thread, i = np.meshgrid(np.arange(128), np.arange(columns // 2), indexing="ij")
    lane = thread % 32
    result = np.full((64, columns), np.nan, np.float32)
    # The sums began as the number of the thread.
    result[thread // 32 * 16 + lane // 4 + i % 4 // 2 * 8, i // 4 * 8 + lane % 4 * 2 + i % 2] = (
        d - thread
    )
    return result


@pytest.mark.parametrize("columns", [64, 128, 256])
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("swizzle", SWIZZLES)
def test_product(library, swizzle, transposed, columns):
    rng = np.random.default_rng(columns)
    code = SWIZZLES[swizzle]
    a = rng.integers(-8, 9, (64, 16)).astype(np.float32)
    b = rng.integers(-8, 9, (columns, 16)).astype(np.float32)
    # Chunks of a line of 64 or 128 bytes.
    for chunk in range({2: 2, 3: 4}.get(code, 1)):
        A, B = (
            Factor(m, code, t, 0 if t else chunk) for m, t in zip((a, b), transposed, strict=True)
        )
        np.testing.assert_array_equal(product(library, A, B, columns), a @ b.T)


def lie(rows, swizzle):
    """Rows of values in shared memory, by the bytes."""
    width = rows.shape[1] // 8
    r, c = np.indices(rows.shape)
    image = np.zeros(rows.size, np.uint16)
    image[swizzled(r * width + c // 8, swizzle) * 8 + c % 8] = rows
    return image


@pytest.mark.parametrize("at", [(0, 0, 0), (8, 2, 1), (-3, -2, 1), (50, 19, 0), (0, 0, 2)])
@pytest.mark.parametrize("swizzle", SWIZZLES)
def test_box(library, swizzle, at):
    """A box of a (2,23,56) tensor, zeros outside of it."""
    code = SWIZZLES[swizzle]
    tensor = np.arange(1, 1 + 2 * 23 * 56, dtype=np.uint16).reshape(2, 23, 56)
    box = (8 << code, 12)
    around = np.zeros((3, 23 + 32, 56 + 128), np.uint16)
    around[:2, 16:39, 64:120] = tensor
    x, y, z = at
    rows = around[z, 16 + y : 16 + y + box[1], 64 + x : 64 + x + box[0]]
    image = np.zeros(rows.size, np.uint16)
    call(library.sm90_box, [56, 23, 2], box, code, at, tensor, image)
    np.testing.assert_array_equal(image, lie(rows, code))


@pytest.mark.parametrize("first", [0, 5, 20])
@pytest.mark.parametrize("swizzle", SWIZZLES)
def test_windows(library, swizzle, first):
    """40 windows from the `first` on, of 3 images that have 4 x 3 each: the last are zeros."""
    code = SWIZZLES[swizzle]
    images = np.arange(1, 1 + 3 * 7 * 6 * 40, dtype=np.uint16).reshape(3, 7, 6, 40)
    corner, count, step, offset = (-1, -2), (4, 3), (2, 3), (2, 1)  # of h, w
    channels, pixels, c = 8 << code, 40, 16
    around = np.zeros((6, 40, 40, 128), np.uint16)
    around[:3, 16:23, 16:22, :40] = images
    rows = []
    for window in range(first, first + pixels):
        n, h, w = window // 12, window // 3 % 4, window % 3
        h, w = (16 + corner[i] + (h, w)[i] * step[i] + offset[i] for i in (0, 1))
        rows.append(around[n, h, w, c : c + channels])
    n, h, w = first // 12, first // 3 % 4, first % 3
    at = [c, corner[1] + w * step[1], corner[0] + h * step[0], n]
    image = np.zeros(pixels * channels, np.uint16)
    windows = [*corner, *count, *step]
    box, offsets = [pixels, channels], [offset[1], offset[0]]
    call(library.sm90_windows, [3, 7, 6, 40], windows, box, code, at, offsets, images, image)
    np.testing.assert_array_equal(image, lie(np.array(rows), code))
