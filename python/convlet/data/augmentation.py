"""Augmentation: one description of how training images are changed at random, and its batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import _core
from convlet.data.contact_sheet import write_contact_sheet
from convlet.data.pipeline import Buffers
from convlet.data.sampling import BalancedSampler
from convlet.utils.seeds import generator

Number = int | float
Range = Number | tuple[Number, Number]

FLIPS = (None, "horizontal", "vertical", "both")
FILLS = ("constant", "nearest", "reflect", "wrap")
INTERPOLATIONS = ("nearest", "bilinear")
KEPT_BATCHES = 3  # pieces of memory for the batch in use, the next, and one that a user looks at


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random: every image anew in every epoch.

    What an image becomes depends on (seed, epoch, index of the image) alone, not on threads, order
    or the size of a batch. All that moves pixels is one resampling of the source: see
    docs/augmentation.md for the formulas. A range may be given as (low, high).

    flip: None, "horizontal", "vertical" or "both"; each with probability 1/2.
    rotate: degrees, counter-clockwise; r means (-r, r).
    shift: how far images move: a float below 1 is a share of height and width, an integer whole
        pixels; (vertical, horizontal) for different reaches. Both directions are equally likely.
    shear: degrees; s means (-s, s).
    zoom: the factor on distances in the source, for both axes apart: above 1 things get smaller;
        z means (1 - z, 1 + z).
    crop: (height, width) of the result, cut out at a random place; None keeps the images' size.
    padding: pixels of fill around the image before the crop.
    resized_crop: share of the area that is kept: a window of so much, inside the image, is resized
        to `crop` (or to the images' size); a means (a, 1).
    ratio: of width to height of such a window.
    brightness, contrast, saturation: a factor; b means (max(0, 1 - b), 1 + b). Contrast is about
        the mean of the grey image; saturation needs 3 channels.
    channel_shift: added to all channels, clipped to the image's own range; c means (-c, c).
    erase: the probability that a rectangle (2 to 33 % of the area) becomes fill_value.
    fill: what is beyond the edges: "nearest", "constant" (fill_value), "reflect", "wrap", as in
        scipy.ndimage.
    interpolation: "bilinear" or "nearest".
    value_range: colours are clipped to it.
    scale, offset: the result is pixel * scale + offset; a number, or one per channel.

    Raises ValueError for anything else.
    """

    flip: str | None = None
    rotate: Range = 0
    shift: Number | tuple[Number, Number] = 0
    shear: Range = 0
    zoom: Range = 0
    crop: tuple[int, int] | None = None
    padding: int = 0
    resized_crop: Range | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    brightness: Range = 0
    contrast: Range = 0
    saturation: Range = 0
    channel_shift: Range = 0
    erase: float = 0
    fill: str = "nearest"
    fill_value: float = 0
    interpolation: str = "bilinear"
    value_range: tuple[float, float] = (0, 255)
    scale: float | tuple[float, ...] = 1
    offset: float | tuple[float, ...] = 0

    def __post_init__(self) -> None:
        for field in fields(self):  # lists come from JSON
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        self._check()

    # Settings.

    def _check(self) -> None:
        _one_of("flip", self.flip, FLIPS)
        _one_of("fill", self.fill, FILLS)
        _one_of("interpolation", self.interpolation, INTERPOLATIONS)
        for name in ("rotate", "shear", "zoom", "brightness", "contrast", "saturation"):
            _range(name, getattr(self, name), 0)
        _range("channel_shift", self.channel_shift, 0)
        _range("ratio", self.ratio, 0)
        low, high = _range("value_range", self.value_range, 0)
        if not low < high:
            raise _expected("value_range", "(low, high) with low < high", self.value_range)
        if not (_is_number(self.erase) and 0 <= self.erase <= 1):
            raise _expected("erase", "a probability in [0, 1]", self.erase)
        _shifts(self.shift)
        if self.crop is not None and not _are_sizes(self.crop, 2, 1):
            raise _expected("crop", "None or (height, width)", self.crop)
        if not _are_sizes((self.padding,), 1, 0):
            raise _expected("padding", "whole pixels >= 0", self.padding)
        if self.padding and self.crop is None:
            raise _expected(
                "padding", "0 without a crop (give crop the images' size)", self.padding
            )
        if self.padding and self.resized_crop is not None:
            raise _expected("padding", "0 with resized_crop, which stays inside", self.padding)
        if self.resized_crop is not None:
            area = self.resized_crop
            low, high = (area, 1.0) if _is_number(area) else _range("resized_crop", area, 0)
            if not 0 < low <= high <= 1:
                raise _expected("resized_crop", "shares of the area in (0, 1]", area)
        for name in ("scale", "offset", "fill_value"):
            value = getattr(self, name)
            values = value if isinstance(value, tuple) and name != "fill_value" else (value,)
            if not values or not all(_is_number(v) for v in values):
                raise _expected(
                    name, "a finite number" + " or one per channel" * (name != "fill_value"), value
                )
        # Ranges of numbers are judged by the compiled module, on some small image.
        channels = 3 if self.saturation else 1
        _core.augment_draws(self.settings, (8192, 8192, channels), np.zeros(0, np.int64), 0, 0, 0)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The description as the compiled module takes it (csrc/ops/augment.h)."""
        settings: dict[str, Any] = {
            "flip_horizontal": 0.5 * (self.flip in ("horizontal", "both")),
            "flip_vertical": 0.5 * (self.flip in ("vertical", "both")),
            "padding": self.padding,
            "value_low": self.value_range[0],
            "value_high": self.value_range[1],
            "erase": self.erase,
            "erase_value": self.fill_value,
            "fill": self.fill,
            "fill_value": self.fill_value,
            "interpolation": self.interpolation,
        }
        for axis, reach in zip("hw", _shifts(self.shift), strict=True):
            settings[f"shift_{axis}_low"], settings[f"shift_{axis}_high"] = -reach, reach
            settings[f"shift_{axis}_share"] = not isinstance(reach, int)
            settings[f"shift_{axis}_whole"] = isinstance(reach, int)
        if self.crop is not None:
            settings["height"], settings["width"] = self.crop
        if self.resized_crop is not None:
            area = self.resized_crop
            settings |= _ends("crop_area", (area, 1.0) if _is_number(area) else area)
            settings |= _ends("crop_ratio", self.ratio)
        settings |= _ends("rotation", _range("rotate", self.rotate, 0))
        settings |= _ends("shear", _range("shear", self.shear, 0))
        for axis in "hw":
            settings |= _ends(f"zoom_{axis}", _range("zoom", self.zoom, 1))
        for name in ("brightness", "contrast", "saturation"):
            low, high = _range(name, getattr(self, name), 1)
            settings |= _ends(
                name, (low if low >= 0 or _is_range(getattr(self, name)) else 0, high)
            )
        return settings | _ends("channel_shift", _range("channel_shift", self.channel_shift, 0))

    def output_shape(self, image_shape: Sequence[int]) -> tuple[int, int, int]:
        """(H, W, C) of the result for images of this shape; ValueError when they do not fit."""
        height, width, channels = image_shape
        if self.crop is None:
            return (height, width, channels)
        _core.augment_draws(self.settings, image_shape, np.zeros(0, np.int64), 0, 0, 0)
        return (*self.crop, channels)

    def to_config(self) -> dict[str, Any]:
        """A JSON-ready description of what differs from the defaults; `from_config` reads it."""
        config = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                config[field.name] = list(value) if isinstance(value, tuple) else value
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Augmentation:
        """The Augmentation that `to_config` described. ValueError for anything else."""
        known = [field.name for field in fields(cls)]
        if not isinstance(config, dict) or not set(config) <= set(known):
            raise ValueError(
                f"Augmentation: expected a config with some of {', '.join(known)}, got {config!r}"
            )
        return cls(**config)

    # Use.

    def __call__(
        self,
        images: NDArray[Any],
        indices: NDArray[np.int64] | None = None,
        epoch: int = 0,
        seed: int = 0,
        *,
        rows: NDArray[np.int64] | None = None,
        dtype: str = "float32",
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Augmented images (N, H', W', C).

        Args:
            images: (M, H, W, C) uint8 or float32.
            indices: (N,) the number of each image in its data set, which decides what it becomes;
                None: its row.
            epoch: in [0, 2^40). seed: in [0, 2^64).
            rows: (N,) the rows of `images` to take; None: all.
            dtype: "float32", or "uint8" (rounded, within 0..255).
            out: where to write the result.

        Raises:
            ValueError, TypeError: that name the argument, what was expected and what came.
        """
        scale, offset = self._factors(np.shape(images)[-1] if np.ndim(images) else 0)
        return _core.augment(
            self.settings, images, rows, indices, seed, epoch, 0, scale, offset, dtype, out
        )

    def pixels(
        self, images: NDArray[Any], indices: NDArray[np.int64], epoch: int = 0, seed: int = 0
    ) -> NDArray[np.float32]:
        """The same before scale and offset: values as the images have them."""
        return _core.augment(
            self.settings, images, None, indices, seed, epoch, 0, None, None, "float32", None
        )

    def _factors(self, channels: int) -> tuple[Any, Any]:
        """scale and offset for images of so many channels; None, None when they change nothing."""
        if self.scale == 1 and self.offset == 0:
            return None, None
        factors = []
        for name in ("scale", "offset"):
            value = np.atleast_1d(np.asarray(getattr(self, name), np.float32))
            if len(value) not in (1, channels):
                raise ValueError(
                    f"Augmentation: {name}: expected 1 or {channels} numbers for images of "
                    f"{channels} channels, got {len(value)}"
                )
            factors.append(np.ascontiguousarray(np.broadcast_to(value, (channels,))))
        return factors[0], factors[1]

    def flow(
        self,
        x: Any,
        y: Any,
        batch_size: int = 32,
        *,
        shuffle: bool = True,
        seed: int = 0,
        epoch: int = 0,
        sampler: BalancedSampler | None = None,
    ) -> AugmentedBatches:
        """Batches for fit from arrays in memory: `model.fit(augmentation.flow(x, y))`."""
        return AugmentedBatches(
            self, x, y, batch_size, shuffle=shuffle, seed=seed, epoch=epoch, sampler=sampler
        )

    def contact_sheet(
        self,
        images: NDArray[Any],
        path: str | PathLike[str],
        *,
        columns: int = 8,
        seed: int = 0,
        titles: Sequence[str] | None = None,
    ) -> None:
        """Write a PNG that shows what this does: a line per image, the image itself first.

        images: (N, H, W, 1 or 3), values in value_range; some eight of them. columns: how often
        each is augmented. titles: what to write before each line.
        """
        images = np.asarray(images)
        changes = [f"{name} {value}" for name, value in self.to_config().items()]
        write_contact_sheet(
            images,
            lambda column: self.pixels(images, np.arange(len(images)), column, seed),
            path,
            columns=columns,
            value_range=self.value_range,
            caption=", ".join(changes) or "nothing is changed",
            titles=titles,
        )


class AugmentedBatches:
    """Batches (x, y) for fit. Every pass gives each image once, augmented, in a new order.

    x: (N,H,W,C) uint8 or float. y: (N,...), or a dict of these by the names of the outputs. seed,
    epoch: decide order and changes; `epoch` counts the passes, so that a training that is resumed
    goes on as it would have. sampler: draws the images of a pass in place of each image once; one
    that is drawn again is changed anew. A batch's memory is used again once nothing refers to it.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        x: Any,
        y: Any,
        batch_size: int = 32,
        *,
        shuffle: bool = True,
        seed: int = 0,
        epoch: int = 0,
        sampler: BalancedSampler | None = None,
    ) -> None:
        x = np.asarray(x)
        self.x = x if x.dtype == np.uint8 else np.ascontiguousarray(x, np.float32)
        self.y = (
            {name: np.asarray(v) for name, v in y.items()} if isinstance(y, dict) else np.asarray(y)
        )
        if self.x.ndim != 4 or len(self.x) == 0:
            raise ValueError(f"Augmentation: expected images x (N,H,W,C), got shape {x.shape}")
        for targets in self.y.values() if isinstance(self.y, dict) else [self.y]:
            if targets.ndim == 0 or len(targets) != len(self.x):
                raise ValueError(
                    f"Augmentation: expected as many targets in y as images in x, got shape "
                    f"{targets.shape} and {len(self.x)}"
                )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"Augmentation: batch_size: expected at least 1, got {batch_size!r}")
        self.augmentation, self.batch_size, self.shuffle = augmentation, batch_size, shuffle
        self.seed, self.epoch, self.sampler = seed, epoch, sampler
        self._sample = augmentation.output_shape(self.x.shape[1:])
        self._buffers = Buffers(KEPT_BATCHES)

    def __len__(self) -> int:
        count = len(self.x) if self.sampler is None else len(self.sampler)
        return -(-count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], Any]]:
        epoch = self.epoch
        self.epoch += 1
        order = self._order(epoch)
        # By their index the augmentation knows images; one that comes twice is to change twice.
        indices = order if self.sampler is None else np.arange(len(order), dtype=np.int64)
        for begin in range(0, len(order), self.batch_size):
            chosen = slice(begin, begin + self.batch_size)
            rows = order[chosen]
            out = self._buffers.array((len(rows), *self._sample), np.float32)
            self.augmentation(self.x, indices[chosen], epoch, self.seed, rows=rows, out=out)
            yield out, self._targets(rows)
            del out

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self.sampler is not None:
            return self.sampler.epoch(epoch)
        if self.shuffle:
            return generator(self.seed, epoch).permutation(len(self.x))
        return np.arange(len(self.x), dtype=np.int64)

    def _targets(self, rows: NDArray[np.int64]) -> Any:
        if isinstance(self.y, dict):
            return {name: targets[rows] for name, targets in self.y.items()}
        return self.y[rows]


def _expected(name: str, what: str, got: Any) -> ValueError:
    return ValueError(f"Augmentation: {name}: expected {what}, got {got!r}")


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise _expected(name, f"one of {', '.join(map(repr, known))}", value)


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _is_range(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_number(v) for v in value)


def _range(name: str, value: Any, middle: float) -> tuple[float, float]:
    """(low, high); a single number is how far to go from the middle."""
    if _is_range(value):
        return value
    if not _is_number(value) or value < 0:
        raise _expected(name, "a number >= 0 or (low, high)", value)
    return (middle - value, middle + value)


def _shifts(value: Any) -> tuple[Number, Number]:
    """The reaches (vertical, horizontal)."""
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2 or not all(
        _is_number(v) and v >= 0 and (isinstance(v, int) or v < 1) for v in pair
    ):
        raise _expected("shift", "a share below 1, whole pixels, or a pair of them", value)
    return pair


def _are_sizes(value: Any, count: int, least: int) -> bool:
    whole = isinstance(value, tuple) and len(value) == count
    return whole and all(
        isinstance(v, int) and not isinstance(v, bool) and least <= v < 2**15 for v in value
    )


def _ends(name: str, value: tuple[float, float]) -> dict[str, float]:
    return {f"{name}_low": value[0], f"{name}_high": value[1]}
