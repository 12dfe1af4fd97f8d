"""ImageDataGenerator, with Keras' arguments, on convlet's augmentation op."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import _core
from convlet.layers import arguments
from convlet.preprocessing.iterators import ArrayIterator, DirectoryIterator
from convlet.utils.seeds import next_seed

__all__ = ["ArrayIterator", "DirectoryIterator", "ImageDataGenerator"]

OWNER = "ImageDataGenerator"
FILL_MODES = ("constant", "nearest", "reflect", "wrap")
EPSILON = 1e-6  # what Keras adds to a standard deviation
ANY_VALUE = 1e30  # colours are not clipped


class ImageDataGenerator:
    """Batches of images, changed at random and standardised.

    After the changes each image x becomes preprocessing_function(x), times rescale, less its own
    mean, by its own deviation, less the mean of the data, by their deviation, whitened: as far as
    these are asked for.

    Args:
        featurewise_center, featurewise_std_normalization: by the mean and the standard deviation of
            each channel, from fit(x). The second includes the first.
        samplewise_center, samplewise_std_normalization: by those of each image.
        zca_whitening: decorrelates pixels by fit(x), with zca_epsilon; for small images.
        rotation_range: degrees.
        width_shift_range, height_shift_range: a float below 1 is a share of the size, from 1 on
            pixels; an integer n whole pixels in (-n, n); a list one of its elements or its
            negative.
        brightness_range: (low, high) of a factor. For images in 0..255.
        shear_range: degrees.
        zoom_range: z for factors in [1 - z, 1 + z] on distances in the source, or (low, high).
        channel_shift_range: most that is added to all channels, within the image's own range.
        fill_mode: "nearest", "constant" (cval), "reflect" or "wrap", as in scipy.ndimage.
        horizontal_flip, vertical_flip: with probability 1/2.
        rescale: a factor; None or 0 for none.
        preprocessing_function: from an image (H,W,C) to one of its shape.
        data_format: "channels_last".
        validation_split: share that subset="validation" takes: shuffled and stratified (Keras takes
            the first ones).
        interpolation_order: 0 or 1.
        dtype: "float32".

    Raises:
        ValueError: that names the argument, what was expected and what came.
    """

    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: Any = 0.0,
        height_shift_range: Any = 0.0,
        brightness_range: Sequence[float] | None = None,
        shear_range: float = 0.0,
        zoom_range: Any = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[NDArray[np.float32]], Any] | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: str | None = None,
    ):
        arguments.channels_last(OWNER, data_format)
        if dtype not in (None, "float32", np.float32):
            raise arguments.expected(OWNER, "dtype", "'float32'", dtype)
        if preprocessing_function is not None and not callable(preprocessing_function):
            raise arguments.expected(
                OWNER, "preprocessing_function", "a function of an image", preprocessing_function
            )
        self.zca_whitening, self.zca_epsilon = bool(zca_whitening), zca_epsilon
        # As in Keras, whitening takes the place of the deviation, and both need the mean.
        self.featurewise_std_normalization = featurewise_std_normalization and not zca_whitening
        self.featurewise_center = bool(
            featurewise_center or featurewise_std_normalization or zca_whitening
        )
        self.samplewise_center = bool(samplewise_center or samplewise_std_normalization)
        self.samplewise_std_normalization = bool(samplewise_std_normalization)
        self.rescale = arguments.number(OWNER, "rescale", rescale or 1)
        self.preprocessing_function = preprocessing_function
        self.validation_split = arguments.number(OWNER, "validation_split", validation_split)
        if not 0 <= self.validation_split < 1:
            raise arguments.expected(
                OWNER, "validation_split", "a share in [0, 1)", validation_split
            )
        self.brightness_range = brightness_range
        self.settings = {
            **_reach("rotation", "rotation_range", rotation_range),
            **_reach("shear", "shear_range", shear_range),
            **_reach("channel_shift", "channel_shift_range", channel_shift_range),
            **_shift("shift_h", "height_shift_range", height_shift_range),
            **_shift("shift_w", "width_shift_range", width_shift_range),
            **_zoom(zoom_range),
            **_brightness(brightness_range),
            "flip_horizontal": 0.5 * bool(horizontal_flip),
            "flip_vertical": 0.5 * bool(vertical_flip),
            "fill_value": arguments.number(OWNER, "cval", cval),
        }
        if fill_mode not in FILL_MODES:
            raise arguments.expected(OWNER, "fill_mode", f"one of {FILL_MODES}", fill_mode)
        if interpolation_order not in (0, 1):
            raise arguments.expected(OWNER, "interpolation_order", "0 or 1", interpolation_order)
        self.settings["fill"] = fill_mode
        self.settings["interpolation"] = ("nearest", "bilinear")[interpolation_order]
        self.mean: NDArray[np.float32] | None = None
        self.std: NDArray[np.float32] | None = None
        self.zca_whitening_matrix: NDArray[np.float32] | None = None

    # Batches.

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: None = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
    ) -> ArrayIterator:
        """Batches from arrays in memory: x, (x, y) or (x, y, sample_weight).

        Args:
            x: (N,H,W,C) uint8 or float.
            shuffle: a new order in each pass.
            seed: of orders and changes; None: the next one of convlet.set_random_seed.
            subset: "training" or "validation" of validation_split. Both are changed at random, as
                in Keras.
            save_to_dir: None; Augmentation.contact_sheet shows what images become.

        Returns:
            An iterator of batches without end; a for loop over it, and an epoch of fit, is one
            pass.
        """
        arguments.unsupported(f"{OWNER}.flow", save_to_dir=save_to_dir)
        self._check_fitted("flow")
        return ArrayIterator(
            self, x, y, sample_weight, batch_size, shuffle, self._seed("flow", seed), subset
        )

    def flow_from_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
    ) -> DirectoryIterator:
        """Batches from a folder with a folder of images per class.

        Args:
            target_size: (height, width) that images are resized to before they are changed.
            color_mode: "rgb" or "grayscale".
            classes: the folders in the order of their labels; None: sorted.
            class_mode: "categorical" (one-hot), "sparse" (int32 (n,)), "binary" (float32 (n,1)),
                "input" (the images) or None (x alone).
            interpolation: "nearest", "bilinear", "bicubic", "area" or "lanczos3".
            keep_aspect_ratio: cut off what sticks out instead of stretching.
            shuffle, seed, subset, save_to_dir: as for flow.

        Returns:
            As flow, with class_indices, classes, filenames and samples.
        """
        arguments.unsupported(f"{OWNER}.flow_from_directory", save_to_dir=save_to_dir)
        self._check_fitted("flow_from_directory")
        return DirectoryIterator(
            self,
            directory,
            image_size=target_size,
            color_mode=color_mode,
            class_names=classes,
            class_mode=class_mode,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=self._seed("flow_from_directory", seed),
            follow_links=follow_links,
            subset=subset,
            interpolation=interpolation,
            crop_to_aspect_ratio=keep_aspect_ratio,
        )

    def _seed(self, method: str, seed: int | None) -> int:
        if seed is None:
            return next_seed()
        return arguments.integer(f"{OWNER}.{method}", "seed", seed, least=0)

    def augment(
        self,
        x: NDArray[Any],
        indices: NDArray[np.int64] | None = None,
        epoch: int = 0,
        seed: int = 0,
        *,
        rows: NDArray[np.int64] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """A changed and standardised batch; the arguments are those of convlet.data.Augmentation.

        Raises ValueError for images outside 0..255 where the brightness changes.
        """
        if self.brightness_range is not None and x.dtype != np.uint8 and x.size:
            low, high = float(x.min()), float(x.max())
            if low < 0 or high > 255:
                raise ValueError(
                    f"{OWNER}: brightness_range: expected images in 0..255, got {low} to {high}"
                )
        scale, offset = self._linear(x.shape[-1])
        y = _core.augment(
            self.settings, x, rows, indices, seed, epoch, 0, scale, offset, "float32", out
        )
        return y if self._is_linear else self.standardize(y)

    @property
    def _is_linear(self) -> bool:
        """Whether the standardisation is one factor and one offset for each channel."""
        return (
            self.preprocessing_function is None
            and not self.samplewise_center
            and not self.zca_whitening
        )

    @property
    def pixel_scale(self) -> float | None:
        """The factor above 0 that is all that is done to pixels which are not changed at random;
        None where it is more than such a factor."""
        plain = self._is_linear and not self.featurewise_center and self.rescale > 0
        return float(self.rescale) if plain else None

    def _linear(self, channels: int) -> tuple[Any, Any]:
        """That factor and offset; None, None where there is nothing to do, or more."""
        centred = self.featurewise_center and self.mean is not None
        if not self._is_linear or (self.rescale == 1 and not centred):
            return None, None
        scale, offset = np.full(channels, self.rescale), np.zeros(channels)
        if self.mean is not None and centred:
            offset -= self.mean.reshape(-1)
            if self.featurewise_std_normalization and self.std is not None:
                scale, offset = (v / (self.std.reshape(-1) + EPSILON) for v in (scale, offset))
        return scale.astype(np.float32), offset.astype(np.float32)

    # Statistics.

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Measures the data, for featurewise_center, featurewise_std_normalization, zca_whitening.

        Args:
            x: (N,H,W,C).
            augment: measure changed images, `rounds` passes of them.
        """
        x = _images(f"{OWNER}.fit", x)
        if augment:
            rounds = arguments.integer(f"{OWNER}.fit", "rounds", rounds)
            number = self._seed("fit", seed)
            passes = [
                _core.augment(
                    self.settings, x, None, None, number, epoch, 0, None, None, "float32", None
                )
                for epoch in range(rounds)
            ]
            x = np.concatenate(passes)
        axes = (0, 1, 2)
        mean = x.mean(axis=axes, dtype=np.float64) * self.rescale
        if self.featurewise_center:
            self.mean = mean.astype(np.float32).reshape(1, 1, -1)
        if self.featurewise_std_normalization:
            deviation = x.std(axis=axes, dtype=np.float64) * abs(self.rescale)
            self.std = deviation.astype(np.float32).reshape(1, 1, -1)
        if self.zca_whitening:
            flat = ((x * self.rescale) - mean).reshape(len(x), -1).astype(np.float64)
            u, s, _ = np.linalg.svd(flat.T, full_matrices=False)
            shrunk = 1 / np.sqrt(s**2 / len(x) + self.zca_epsilon)
            self.zca_whitening_matrix = ((u * shrunk) @ u.T).astype(np.float32)

    def _check_fitted(self, method: str) -> None:
        if self.featurewise_center and self.mean is None:
            raise ValueError(
                f"{OWNER}.{method}: featurewise_center, featurewise_std_normalization and "
                "zca_whitening need the statistics of the data: call fit(x) first"
            )

    def standardize(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """An image (H,W,C) or a batch (N,H,W,C), changed in place where that is possible."""
        if self.preprocessing_function is not None:
            x = self._preprocessed(x)
        if self.rescale != 1:
            x *= np.float32(self.rescale)
        axes = (-3, -2, -1)
        if self.samplewise_center:
            x -= x.mean(axis=axes, keepdims=True)
        if self.samplewise_std_normalization:
            x /= x.std(axis=axes, keepdims=True) + np.float32(EPSILON)
        if self.featurewise_center and self.mean is not None:
            x -= self.mean
        if self.featurewise_std_normalization and self.std is not None:
            x /= self.std + np.float32(EPSILON)
        if self.zca_whitening_matrix is not None:
            size = x.shape[-3] * x.shape[-2] * x.shape[-1]
            if size != len(self.zca_whitening_matrix):
                raise ValueError(
                    f"{OWNER}: zca_whitening: expected images of "
                    f"{len(self.zca_whitening_matrix)} values as in fit, got {size}"
                )
            x = (x.reshape(-1, size) @ self.zca_whitening_matrix).reshape(x.shape)
        return x

    def _preprocessed(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self.preprocessing_function is not None
        images = x if x.ndim == 4 else x[None]
        for image in images:
            result = np.asarray(self.preprocessing_function(image))
            if result.shape != image.shape:
                raise ValueError(
                    f"{OWNER}: preprocessing_function: expected an image {image.shape} back, "
                    f"got {result.shape}"
                )
            image[...] = result
        return x

    # Single images.

    def get_random_transform(
        self, img_shape: Sequence[int], seed: int | None = None
    ) -> dict[str, Any]:
        """What would be drawn for an image (H,W,C): theta and shear in degrees, tx and ty in
        pixels along columns and rows, zx and zy, the flips, channel_shift_intensity, brightness."""
        number = self._seed("get_random_transform", seed)
        (d,) = _core.augment_draws(self.settings, img_shape, np.zeros(1, np.int64), number, 0, 0)
        shifts = self.settings["channel_shift_high"] != 0
        return {
            "theta": d["rotation"],
            "tx": d["shift_w"],
            "ty": d["shift_h"],
            "shear": d["shear"],
            "zx": d["zoom_w"],
            "zy": d["zoom_h"],
            "flip_horizontal": d["flip_horizontal"],
            "flip_vertical": d["flip_vertical"],
            "channel_shift_intensity": d["channel_shift"] if shifts else None,
            "brightness": None if self.brightness_range is None else d["brightness"],
        }

    def apply_transform(
        self, x: NDArray[Any], transform_parameters: dict[str, Any]
    ) -> NDArray[np.float32]:
        """An image (H,W,C) changed by the numbers that get_random_transform names; any may lack."""
        keys = {"theta": "rotation", "shear": "shear", "tx": "shift_w", "ty": "shift_h"}
        keys |= {"zx": "zoom_w", "zy": "zoom_h", "brightness": "brightness"}
        keys |= {"channel_shift_intensity": "channel_shift"}
        flips = ("flip_horizontal", "flip_vertical")
        if unknown := set(transform_parameters) - set(keys) - set(flips):
            known = ", ".join([*keys, *flips])
            raise ValueError(
                f"{OWNER}.apply_transform: expected parameters among {known}, got {sorted(unknown)}"
            )
        settings = {name: self.settings[name] for name in ("fill", "fill_value", "interpolation")}
        clips = transform_parameters.get("brightness") is not None
        settings |= {"value_low": 0, "value_high": 255} if clips else _UNCLIPPED
        for key, name in keys.items():
            value = transform_parameters.get(key)
            if value is not None:
                settings |= {f"{name}_low": value, f"{name}_high": value}
        for flip in flips:
            settings[flip] = float(bool(transform_parameters.get(flip)))
        x = _images(f"{OWNER}.apply_transform", np.asarray(x)[None])
        return _core.augment(settings, x, None, None, 0, 0, 0, None, None, "float32", None)[0]

    def random_transform(self, x: NDArray[Any], seed: int | None = None) -> NDArray[np.float32]:
        """An image (H,W,C) changed at random, not standardised."""
        return self.apply_transform(x, self.get_random_transform(np.shape(x), seed))


_UNCLIPPED = {"value_low": -ANY_VALUE, "value_high": ANY_VALUE}


def _images(owner: str, x: Any) -> NDArray[Any]:
    """(N,H,W,C) uint8 or float32."""
    x = np.asarray(x)
    if x.ndim != 4 or x.dtype.kind not in "fiub":
        raise ValueError(
            f"{owner}: x: expected images (N,H,W,C) of numbers, got {x.dtype} {x.shape}"
        )
    return x if x.dtype == np.uint8 else np.ascontiguousarray(x, np.float32)


def _reach(name: str, argument: str, value: Any) -> dict[str, float]:
    reach = abs(arguments.number(OWNER, argument, value))
    return {f"{name}_low": -reach, f"{name}_high": reach}


def _shift(name: str, argument: str, value: Any) -> dict[str, Any]:
    if arguments.is_integer(value):
        # Keras' draw of an integer: one of 0 ... n-1, and a sign.
        return {f"{name}_choices": [float(v) for v in range(max(1, abs(int(value))))]}
    if isinstance(value, (list, tuple, np.ndarray)):
        choices = [arguments.number(OWNER, argument, v) for v in value]
        if not choices:
            raise arguments.expected(OWNER, argument, "a number or some of them", value)
        return {f"{name}_choices": choices, f"{name}_share": int(max(choices) < 1)}
    reach = abs(arguments.number(OWNER, argument, value))
    return {f"{name}_low": -reach, f"{name}_high": reach, f"{name}_share": int(reach < 1)}


def _zoom(value: Any) -> dict[str, float]:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        low, high = sorted(arguments.number(OWNER, "zoom_range", v) for v in value)
    else:
        reach = arguments.number(OWNER, "zoom_range", value)
        low, high = 1 - abs(reach), 1 + abs(reach)
    if not 0 < low <= high:
        raise arguments.expected(
            OWNER, "zoom_range", "a number in [0, 1) or (low, high) above 0", value
        )
    return {"zoom_h_low": low, "zoom_h_high": high, "zoom_w_low": low, "zoom_w_high": high}


def _brightness(value: Any) -> dict[str, float]:
    if value is None:
        return dict(_UNCLIPPED)
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise arguments.expected(OWNER, "brightness_range", "None or (low, high)", value)
    low, high = sorted(arguments.number(OWNER, "brightness_range", v) for v in value)
    if low < 0:
        raise arguments.expected(OWNER, "brightness_range", "factors of at least 0", value)
    return {"brightness_low": low, "brightness_high": high, "value_low": 0, "value_high": 255}
