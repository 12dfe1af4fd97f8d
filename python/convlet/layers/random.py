"""Layers that change images at random in training and leave them alone elsewhere."""

from collections.abc import Sequence
from typing import Any

from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer

Factor = float | tuple[float, float]

FILL_MODES = ("constant", "nearest", "reflect", "wrap")
INTERPOLATIONS = ("nearest", "bilinear")
FLIP_MODES = {
    "horizontal": (0.5, 0.0),
    "vertical": (0.0, 0.5),
    "horizontal_and_vertical": (0.5, 0.5),
}


class RandomImage(Layer):
    """Base of the layers: (H, W, C) -> (H, W, C), each image of a batch for itself.

    They pass no gradient back: no trainable layer may come before them. What they draw follows from
    the model's seed (convlet.set_random_seed) and the count of updates; `seed` is accepted as in
    Keras and kept.
    """

    def __init__(self, *, seed: int | None = None, data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.channels_last(self.owner, data_format)
        self.seed = seed

    def settings(self) -> dict[str, Any]:
        """The attributes of the op (csrc/ops/augment.h)."""
        raise NotImplementedError

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        x = self.one_input(inputs)
        settings = self.settings() if graph.training else self.rest()
        return [graph.node("augment", self, [x], (), settings)] if settings else [x]

    def rest(self) -> dict[str, Any]:
        """The attributes outside training; {} where images stay as they are."""
        return {}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"seed": self.seed}


class RandomGeometry(RandomImage):
    """Base of those that move pixels: what comes in from beyond the edges, and the resampling."""

    def __init__(
        self,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        fill_value: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if fill_mode not in FILL_MODES:
            raise arguments.expected(self.owner, "fill_mode", f"one of {FILL_MODES}", fill_mode)
        if interpolation not in INTERPOLATIONS:
            raise arguments.expected(
                self.owner, "interpolation", f"one of {INTERPOLATIONS}", interpolation
            )
        self.fill_mode, self.interpolation = fill_mode, interpolation
        self.fill_value = arguments.number(self.owner, "fill_value", fill_value)

    def settings(self) -> dict[str, Any]:
        return {
            "fill": self.fill_mode,
            "fill_value": self.fill_value,
            "interpolation": self.interpolation,
        }

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "fill_mode": self.fill_mode,
            "interpolation": self.interpolation,
            "fill_value": self.fill_value,
        }


class RandomFlip(RandomImage):
    """Mirrors images, each way with probability 1/2 and for itself.

    Args:
        mode: "horizontal", "vertical" or "horizontal_and_vertical".
    """

    def __init__(
        self,
        mode: str = "horizontal_and_vertical",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        if mode not in FLIP_MODES:
            raise arguments.expected(self.owner, "mode", f"one of {tuple(FLIP_MODES)}", mode)
        self.mode = mode

    def settings(self) -> dict[str, Any]:
        horizontal, vertical = FLIP_MODES[self.mode]
        return {"flip_horizontal": horizontal, "flip_vertical": vertical}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"mode": self.mode}


class RandomRotation(RandomGeometry):
    """Turns images about their centre.

    Args:
        factor: share of a full turn, counter-clockwise: (low, high), or f for (-f, f).
        fill_mode: "reflect", "constant" (fill_value), "wrap" or "nearest", as in scipy.ndimage.
        interpolation: "bilinear" or "nearest".
    """

    def __init__(
        self,
        factor: Factor,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            fill_mode, interpolation, fill_value, seed=seed, data_format=data_format, **kwargs
        )
        self.factor = _factor(self.owner, "factor", factor)

    def settings(self) -> dict[str, Any]:
        return super().settings() | _ends("rotation", (360 * f for f in self.factor))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"factor": list(self.factor)}


class RandomTranslation(RandomGeometry):
    """Moves images.

    Args:
        height_factor: share of the height, downwards: (low, high), or f for (-f, f).
        width_factor: share of the width, to the right.
        fill_mode, interpolation, fill_value: as for RandomRotation.
    """

    def __init__(
        self,
        height_factor: Factor,
        width_factor: Factor,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            fill_mode, interpolation, fill_value, seed=seed, data_format=data_format, **kwargs
        )
        self.height_factor = _factor(self.owner, "height_factor", height_factor)
        self.width_factor = _factor(self.owner, "width_factor", width_factor)

    def settings(self) -> dict[str, Any]:
        settings = super().settings() | {"shift_h_share": 1, "shift_w_share": 1}
        for axis, (low, high) in (("h", self.height_factor), ("w", self.width_factor)):
            settings |= _ends(f"shift_{axis}", (-high, -low))  # the op's shift is the source's
        return settings

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "height_factor": list(self.height_factor),
            "width_factor": list(self.width_factor),
        }


class RandomZoom(RandomGeometry):
    """Shows more or less of images.

    Args:
        height_factor: how much more of the height is shown: (low, high), or f for (-f, f); -0.3
            makes things larger, 0.3 smaller. Above -1, at most 1.
        width_factor: the same for the width; None: as drawn for the height.
        fill_mode, interpolation, fill_value: as for RandomRotation.
    """

    def __init__(
        self,
        height_factor: Factor,
        width_factor: Factor | None = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            fill_mode, interpolation, fill_value, seed=seed, data_format=data_format, **kwargs
        )
        self.height_factor = _factor(self.owner, "height_factor", height_factor, least=-0.999)
        self.width_factor = (
            None
            if width_factor is None
            else _factor(self.owner, "width_factor", width_factor, least=-0.999)
        )

    def settings(self) -> dict[str, Any]:
        settings = super().settings() | {"zoom_together": int(self.width_factor is None)}
        for axis, factor in (("h", self.height_factor), ("w", self.width_factor or (0.0, 0.0))):
            settings |= _ends(f"zoom_{axis}", (1 + f for f in factor))
        return settings

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "height_factor": list(self.height_factor),
            "width_factor": None if self.width_factor is None else list(self.width_factor),
        }


class RandomCrop(RandomImage):
    """(H, W, C) -> (height, width, C): cut out at a random place in training, else in the middle.

    Args:
        height, width: of the result, at most those of the images.
    """

    def __init__(
        self,
        height: int,
        width: int,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.height = arguments.integer(self.owner, "height", height)
        self.width = arguments.integer(self.owner, "width", width)

    def settings(self) -> dict[str, Any]:
        return {"height": self.height, "width": self.width}

    def rest(self) -> dict[str, Any]:
        return self.settings() | {"crop_centre": 1}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"height": self.height, "width": self.width}


class RandomContrast(RandomImage):
    """y = (x - m) * c + m, clipped, with m the mean of each channel of each image.

    Args:
        factor: c is drawn from (1 - low, 1 + high) for (low, high), f for (f, f); in [0, 1].
        value_range: that y is clipped to.
    """

    def __init__(
        self,
        factor: Factor,
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        pair = isinstance(factor, (tuple, list))
        self.factor = _ordered(self.owner, "factor", factor if pair else (factor, factor), 0, 1)
        self.value_range = _values(self.owner, value_range)

    def settings(self) -> dict[str, Any]:
        low, high = self.factor
        colour = _ends("contrast", (1 - low, 1 + high)) | {"contrast_per_channel": 1}
        return colour | _ends("value", self.value_range)

    def get_config(self) -> dict[str, Any]:
        config = {"factor": list(self.factor), "value_range": list(self.value_range)}
        return super().get_config() | config


class RandomBrightness(RandomImage):
    """y = x + b, clipped, with one b for each image.

    Args:
        factor: b as a share of the value range: (low, high), or f for (-f, f); in [-1, 1].
        value_range: of x, that y is clipped to.
    """

    def __init__(
        self,
        factor: Factor,
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        self.factor = _factor(self.owner, "factor", factor)
        self.value_range = _values(self.owner, value_range)

    def settings(self) -> dict[str, Any]:
        low, high = self.value_range
        colour = _ends("brightness_shift", (f * (high - low) for f in self.factor))
        return colour | _ends("value", self.value_range)

    def get_config(self) -> dict[str, Any]:
        config = {"factor": list(self.factor), "value_range": list(self.value_range)}
        return super().get_config() | config


def _factor(
    owner: str, argument: str, value: Any, least: float = -1.0, most: float = 1.0
) -> tuple[float, float]:
    """(low, high) in order; a number f is (-|f|, |f|)."""
    if not isinstance(value, (tuple, list)):
        reach = abs(arguments.number(owner, argument, value))
        value = (max(-reach, least) if reach < 1 else -reach, reach)
    low, high = _ordered(owner, argument, value, least, most)
    return min(low, high), max(low, high)


def _ordered(
    owner: str, argument: str, value: Any, least: float, most: float
) -> tuple[float, float]:
    """Two numbers in [least, most]."""
    what = f"a number or two of them in [{least}, {most}]"
    if not isinstance(value, Sequence) or len(value) != 2:
        raise arguments.expected(owner, argument, what, value)
    first, second = (arguments.number(owner, argument, v) for v in value)
    if not (least <= min(first, second) and max(first, second) <= most):
        raise arguments.expected(owner, argument, what, value)
    return first, second


def _values(owner: str, value: Any) -> tuple[float, float]:
    what = "(low, high) with low < high"
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise arguments.expected(owner, "value_range", what, value)
    low, high = (arguments.number(owner, "value_range", v) for v in value)
    if not low < high:
        raise arguments.expected(owner, "value_range", what, value)
    return low, high


def _ends(name: str, ends: Any) -> dict[str, float]:
    low, high = ends
    return {f"{name}_low": low, f"{name}_high": high}
