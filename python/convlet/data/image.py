"""Decode image files of any mode into 8-bit grey or RGB; a broken one is one clear error.

JPEG files go through simplejpeg where it is installed (`pip install convlet[jpeg]`): the same
decoder as Pillow's (libjpeg-turbo) and the same pixels, in half the time.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
)
# Only plain bitmap decoders: Pillow also knows formats that start other programs (EPS).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# A few kilobytes can claim gigapixels. Larger images are refused before they are decoded.
MAX_PIXELS = 80_000_000
ORIENTATION = 0x0112  # the EXIF tag


def is_image_name(name: str) -> bool:
    """True for a file name that ends like an image and is not hidden."""
    return not name.startswith(".") and f".{name.rpartition('.')[2].lower()}" in SUFFIXES


def read_header(path: str | Path) -> tuple[tuple[int, int], bool]:
    """((height, width) after EXIF orientation, whether the image has colour), without decoding it.

    Raises ValueError that names the file when it is no image.
    """
    try:
        with _open(path, str(path)) as image:
            height, width = image.height, image.width
            turned = image.getexif().get(ORIENTATION, 1) >= 5  # orientations 5..8 swap the sides
            grey = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
    except Exception as error:  # as in decode
        raise _explained(error, str(path)) from error
    return ((width, height) if turned else (height, width)), not grey


def decode(data: bytes, name: str, at_least: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decode the bytes of an image file into upright pixels: grey (h,w,1) or RGB (h,w,3).

    EXIF orientation is applied. Palettes become RGB, CMYK becomes RGB, 16-bit grey is mapped from
    0..65535 to 0..255, transparency is laid over white, and of an animation the first frame is
    taken. The content decides, not the ending of the name.

    at_least: (height, width) that is enough: a JPEG is then decoded at 1/2, 1/4 or 1/8 of its size,
    the smallest that keeps both sides this long, which is several times faster for photographs.
    name: stands in the ValueError that is raised when this cannot be done.
    """
    from PIL import ImageOps

    try:
        with _open(io.BytesIO(data), name) as image:
            if image.format == "JPEG":
                parts = 1 if at_least is None else _parts(image, at_least)
                turn = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
                pixels = _decode_jpeg(data, image, parts)
                if pixels is not None:
                    return _turned(pixels, turn)
                if parts > 1:
                    image.draft(None, (image.width // parts, image.height // parts))
            image.load()
            return as_pixels(eight_bit(ImageOps.exif_transpose(image), name))
    except Exception as error:  # a broken file can make a decoder raise anything
        raise _explained(error, name) from error


def as_pixels(image: Image) -> NDArray[np.uint8]:
    """(h,w,1) of an "L" image, (h,w,3) of an "RGB" one."""
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def as_image(pixels: NDArray[np.uint8]) -> Image:
    """The "L" or "RGB" image of (h,w,1) or (h,w,3)."""
    from PIL import Image

    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _parts(image: Image, at_least: tuple[int, int]) -> int:
    """1, 2, 4 or 8: the part of its size that a JPEG is decoded at."""
    height, width = at_least
    if image.getexif().get(ORIENTATION, 1) >= 5:
        height, width = width, height
    for parts in (8, 4, 2):
        across, down = _divided(image.size, parts)
        if across >= width and down >= height:
            return parts
    return 1


def _divided(size: tuple[int, int], parts: int) -> tuple[int, int]:
    return -(-size[0] // parts), -(-size[1] // parts)


def _decode_jpeg(data: bytes, image: Image, parts: int) -> NDArray[np.uint8] | None:
    """By simplejpeg, not yet turned; None where Pillow is to decide: simplejpeg is not installed,
    or it objects to the file."""
    decoder = _simplejpeg()
    if decoder is None or image.mode not in ("L", "RGB"):
        return None
    width, height = _divided(image.size, parts)
    try:
        pixels = decoder.decode_jpeg(
            data, "GRAY" if image.mode == "L" else "RGB", min_height=height, min_width=width
        )
    except ValueError:
        return None
    return pixels if pixels.shape[:2] == (height, width) else None


@cache
def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _open(file: str | Path | io.BytesIO, name: str) -> Image:
    from PIL import Image

    try:
        image = Image.open(file, formats=FORMATS)
        pixels = image.width * image.height
    except Image.DecompressionBombError:
        pixels = MAX_PIXELS + 1
    if pixels > MAX_PIXELS:
        raise ValueError(f"{name}: larger than {MAX_PIXELS // 10**6} million pixels, refused")
    return image


def eight_bit(image: Image, name: str) -> Image:
    """An opaque "L" or "RGB" image of the same size, by the rules of `decode`."""
    from PIL import Image

    mode = image.mode
    if mode == "F":
        raise ValueError(f"{name}: floating-point pixels have no defined white; save it as 8 bit")
    if mode == "I" or mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"{name}: 32-bit pixels have no defined white; save it as 8 or 16 bit")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        opaque = Image.new("RGBA", image.size, (255, 255, 255, 255))
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("L" if mode in ("1", "L", "LA", "La") else "RGB")
    return image.convert("L" if mode in ("1", "L") else "RGB")


def _explained(error: Exception, name: str) -> Exception:
    from PIL import UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{name}: no such file")
    if isinstance(error, PermissionError | IsADirectoryError):
        return type(error)(f"{name}: cannot be read: {error.strerror}")
    if isinstance(error, UnidentifiedImageError):
        return ValueError(f"{name}: not an image (expected one of {', '.join(FORMATS)})")
    if isinstance(error, ValueError) and str(error).startswith(name):
        return error
    return ValueError(f"{name}: cannot be decoded as an image: {error or type(error).__name__}")
