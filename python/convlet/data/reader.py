"""One image into its place: from memory, from a cache, or decoded; a broken one once only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.data.broken import DEFAULT_LIMIT, BrokenImages
from convlet.data.cache import Cache
from convlet.data.folders import printable
from convlet.data.preprocessing import Preprocessing
from convlet.data.source import read_bytes


class BrokenImage(ValueError):
    """An image that cannot be read; the message names it."""


class ImageReader:
    """Reads images by index.

    images: file paths, or uint8 pixels (N,H,W,C), mapped from a file or not.
    max_broken: how many may be unreadable, a number or a share below 1.
    """

    def __init__(
        self,
        images: Sequence[str] | NDArray[np.uint8],
        preprocessing: Preprocessing,
        max_broken: float = DEFAULT_LIMIT,
    ) -> None:
        self.images = _checked(images)
        self.preprocessing = preprocessing
        self.broken = BrokenImages(len(images), max_broken)
        self.cache: Cache | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H,W,C) of what is read."""
        return self.preprocessing.input_shape

    @property
    def needs_work(self) -> bool:
        """Whether reading is more than copying memory."""
        return not isinstance(self.images, np.ndarray) or self.images.shape[1:] != self.shape

    def name(self, index: int) -> str:
        """What to call an image."""
        image = self.images[index]
        return printable(image) if isinstance(image, str) else f"image {index}"

    def read(self, index: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` (H,W,C), a contiguous array.

        Raises BrokenImage; the caller reports it in order of the samples to `broken`.
        """
        image = self.images[index]
        if not isinstance(image, str):
            out[...] = self.preprocessing.pixels(image)
            return
        if index in self.broken:
            raise BrokenImage(self.broken.reasons[index])
        try:
            if self.cache is not None and self.cache.get(index, out):
                return
            self._decode(index, out)
        except (ValueError, OSError) as error:
            raise BrokenImage(str(error)) from None
        if self.cache is not None:
            self.cache.put(index, out)

    def _decode(self, index: int, out: NDArray[np.uint8]) -> None:
        path = self.images[index]
        data = read_bytes(path)
        try:
            self.preprocessing.decoded(data, printable(path), out)
        except ValueError:
            if self.cache is not None:
                self.cache.put_broken(index)
            raise

    def gather(self, indices: NDArray[Any], out: NDArray[np.uint8]) -> None:
        """Fill `out` (n,H,W,C) from pixels that need no work."""
        np.take(self.images, indices, axis=0, out=out)


def _checked(images: Any) -> list[str] | NDArray[np.uint8]:
    if isinstance(images, np.ndarray) and images.dtype.kind not in "UO":
        if images.ndim == 3:
            images = images[..., None]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(
                "images: expected paths or uint8 pixels (N,H,W[,1 or 3]), got "
                f"{images.dtype} {images.shape}"
            )
        return images
    try:
        return [os.fsdecode(image) for image in images]
    except TypeError as error:
        raise TypeError(f"images: expected paths or uint8 pixels (N,H,W,C): {error}") from None
