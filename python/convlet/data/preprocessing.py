"""How a file or an array becomes a model's input: one description, saved in the model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

COLOR_MODES = {"grayscale": 1, "rgb": 3}
RESIZE_POLICIES = ("stretch", "crop", "pad")
INTERPOLATIONS = {  # Pillow's filters
    "nearest": "NEAREST",
    "bilinear": "BILINEAR",
    "bicubic": "BICUBIC",
    "area": "BOX",
    "lanczos3": "LANCZOS",
}
# A JPEG is decoded at a half, a quarter or an eighth where that is still this much larger than what
# it is resized to: the filter then has as good as all of its input.
SCALED_DECODING_MARGIN = 2


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a model's input, the same in training, evaluation and prediction.

    size: (height, width) of the model's input, in pixels.
    color_mode: "grayscale" (1 channel, ITU-R 601 luma) or "rgb" (3 channels).
    resize: for an image of another size: "stretch" ignores the aspect ratio; "crop" keeps it and
        cuts off what sticks out, around the centre; "pad" keeps it and fills the rest with black.
    scale: factor from pixels 0..255 to the model's input. 1.0 keeps uint8 pixels, for models that
        begin with a Rescaling or Normalization layer; anything else gives float32.
    interpolation: of the resize: "bilinear", "bicubic", "area", "lanczos3" (all antialiased when
        shrinking), or "nearest".

    Raises ValueError when a field is none of these.
    """

    size: tuple[int, int]
    color_mode: str = "rgb"
    resize: str = "stretch"
    scale: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        size = self.size
        if not (
            isinstance(size, tuple | list)
            and len(size) == 2
            and all(isinstance(n, int) and not isinstance(n, bool) and 0 < n < 2**15 for n in size)
        ):
            raise ValueError(
                f"Preprocessing: expected size (height, width) in 1..{2**15 - 1}, got {size!r}"
            )
        object.__setattr__(self, "size", tuple(size))
        if self.color_mode not in tuple(COLOR_MODES):
            raise ValueError(
                f"Preprocessing: expected color_mode in {sorted(COLOR_MODES)}, "
                f"got {self.color_mode!r}"
            )
        if self.resize not in RESIZE_POLICIES:
            raise ValueError(
                f"Preprocessing: expected resize in {RESIZE_POLICIES}, got {self.resize!r}"
            )
        if isinstance(self.scale, bool) or not (
            isinstance(self.scale, int | float) and math.isfinite(self.scale) and self.scale > 0
        ):
            raise ValueError(f"Preprocessing: expected a scale above 0, got {self.scale!r}")
        if self.interpolation not in tuple(INTERPOLATIONS):
            raise ValueError(
                f"Preprocessing: expected interpolation in {sorted(INTERPOLATIONS)}, "
                f"got {self.interpolation!r}"
            )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the model's input."""
        return (*self.size, COLOR_MODES[self.color_mode])

    def __call__(self, image: str | PathLike[str] | Image | NDArray[np.uint8]) -> NDArray[Any]:
        """One model input (H, W, C) from a file, a Pillow image, or uint8 pixels (h, w[, 1 or 3]).

        Raises ValueError, TypeError or FileNotFoundError that names the file or the array's fault.
        """
        return self.scaled(self.pixels(image))

    def batch(
        self, images: Iterable[str | PathLike[str] | Image | NDArray[np.uint8]]
    ) -> NDArray[Any]:
        """Model inputs (N, H, W, C) from files, Pillow images, or uint8 arrays."""
        pixels = [self.pixels(image) for image in images]
        return self.scaled(np.stack(pixels) if pixels else np.empty((0, *self.input_shape), "u1"))

    def pixels(self, image: str | PathLike[str] | Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The uint8 pixels (H, W, C) before `scale`."""
        from convlet.data.image import as_pixels, eight_bit

        if isinstance(image, str | PathLike):
            try:
                data = Path(image).read_bytes()
            except FileNotFoundError:
                raise FileNotFoundError(f"{image}: no such file") from None
            return self.decoded(data, str(image))
        if isinstance(image, np.ndarray):
            return self._from_array(image)
        return self.fitted(as_pixels(eight_bit(image, "image")))

    def decoded(
        self, data: bytes, name: str, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """uint8 pixels (H, W, C) from the bytes of an image file; `name` stands in its errors.

        Raises ValueError that names the file when it cannot be decoded.
        """
        from convlet.data.image import decode

        enough = (SCALED_DECODING_MARGIN * self.size[0], SCALED_DECODING_MARGIN * self.size[1])
        at_least = None if self.interpolation == "nearest" else enough
        return self.fitted(decode(data, name, at_least), out)

    def fitted(
        self, pixels: NDArray[np.uint8], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """uint8 pixels (H, W, C) from pixels (h, w, 1 or 3): colour, then size.

        out: C-contiguous (H, W, C) to write to; None for a new array.
        """
        if out is None:
            out = np.empty(self.input_shape, np.uint8)
        pixels = _in_color(pixels, out.shape[2])
        size, inner = pixels.shape[:2], self.size
        if self.resize == "crop" and size != inner:
            self._crop(pixels, out)
        elif self.resize == "pad" and size != inner:
            ratio = min(inner[0] / size[0], inner[1] / size[1])
            height, width = (max(1, round(n * ratio)) for n in size)
            top, left = (inner[0] - height) // 2, (inner[1] - width) // 2
            whole = np.empty((height, width, out.shape[2]), np.uint8)
            self._stretch(pixels, whole)
            out[...] = 0
            out[top : top + height, left : left + width] = whole
        else:
            self._stretch(pixels, out)
        return out

    def _stretch(self, pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        from PIL import Image

        from convlet import _core
        from convlet.data.image import as_image, as_pixels

        height, width = out.shape[:2]
        if pixels.shape == out.shape:
            out[...] = pixels
        elif self.interpolation == "bilinear":
            _core.resize_bilinear(pixels, out)
        else:
            method = Image.Resampling[INTERPOLATIONS[self.interpolation]]
            out[...] = as_pixels(as_image(pixels).resize((width, height), method))

    def _crop(self, pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        from PIL import Image, ImageOps

        from convlet.data.image import as_image, as_pixels

        method = Image.Resampling[INTERPOLATIONS[self.interpolation]]
        size = (self.size[1], self.size[0])
        out[...] = as_pixels(ImageOps.fit(as_image(pixels), size, method))

    def _from_array(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if pixels.dtype != np.uint8:
            raise TypeError(
                f"image: expected uint8 pixels 0..255, got {pixels.dtype}; arrays that already are "
                "a model's input go to predict()"
            )
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
            raise ValueError(
                f"image: expected pixels (height, width[, 1 or 3]), got shape {pixels.shape}"
            )
        return pixels if pixels.shape == self.input_shape else self.fitted(pixels)

    def scaled(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Pixels with `scale` applied: uint8 as they are when it is 1, else float32."""
        return pixels if self.scale == 1.0 else pixels * np.float32(self.scale)

    def to_config(self) -> dict[str, Any]:
        """A JSON-ready description; `from_config` reads it back."""
        return {
            "size": list(self.size),
            "color_mode": self.color_mode,
            "resize": self.resize,
            "scale": self.scale,
            "interpolation": self.interpolation,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Preprocessing:
        """The Preprocessing that `to_config` described. ValueError for anything else."""
        names = {field.name for field in fields(cls)}
        if not isinstance(config, dict) or set(config) != names:
            raise ValueError(
                f"Preprocessing: expected a config with {', '.join(sorted(names))}, got {config!r}"
            )
        return cls(**config)


def _in_color(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    from convlet.data.image import as_image, as_pixels

    if pixels.shape[2] == channels:
        return pixels
    return as_pixels(as_image(pixels).convert("L" if channels == 1 else "RGB"))
