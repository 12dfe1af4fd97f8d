"""Normalization of a model's input."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer, Shape

# (1e-7)**2, under the root: Keras divides by max(sqrt(variance), 1e-7).
EPSILON = 1e-14
CHUNK = 256  # samples that adapt holds as float64 at a time


class Normalization(Layer):
    """y = (x - mean) / sqrt(variance) for each channel, the last axis, with fixed numbers that
    training leaves alone. As the first layer of a model it makes uint8 images fit it, and is saved
    with it.

    Args:
        axis: -1, or the number of the last axis.
        mean, variance: one number, or one per channel; both or none. Without them ``adapt`` finds
            them from data, before the layer is used.
        invert: only False.

    Weights: mean and variance, (C,), not trainable.
    """

    def __init__(
        self,
        axis: int = -1,
        mean: ArrayLike | None = None,
        variance: ArrayLike | None = None,
        invert: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.axis = arguments.integer(self.owner, "axis", axis, -(2**31))
        if arguments.flag(self.owner, "invert", invert):
            raise arguments.expected(self.owner, "invert", "False (convlet does not have it)", True)
        if (mean is None) != (variance is None):
            raise arguments.expected(
                self.owner, "mean and variance", "both or none", (mean, variance)
            )
        self._statistics: dict[str, NDArray[np.float32]] = {}
        if mean is not None:
            self._set(_numbers(self.owner, "mean", mean), _variances(self.owner, variance))

    def adapt(self, data: ArrayLike, batch_size: int | None = None, steps: Any = None) -> None:
        """Takes mean and variance, over all axes but the last, from data (N, ..., C). batch_size
        and steps: as in Keras, where all data is in an array they decide nothing."""
        arguments.unsupported(self.owner, steps=steps)
        x = np.asarray(data)
        if x.ndim < 2 or x.size == 0 or x.dtype.kind not in "uif":
            raise arguments.expected(
                self.owner, "data", "numbers (N,...,C) of one sample at least", (x.dtype, x.shape)
            )
        rows = x.size // x.shape[-1]
        chunks = range(0, len(x), CHUNK)

        def total(function: Any) -> NDArray[np.float64]:
            parts = (function(x[i : i + CHUNK].astype(np.float64)) for i in chunks)
            return sum(part.reshape(-1, x.shape[-1]).sum(axis=0) for part in parts) / rows

        mean = total(lambda values: values)
        self._set(mean, total(lambda values: (values - mean) ** 2))
        for variable in self.weights:
            variable.assign(np.broadcast_to(self._statistics[variable.name], variable.shape))

    def _set(self, mean: NDArray[np.float64], variance: NDArray[np.float64]) -> None:
        self._statistics = {
            "mean": mean.astype(np.float32),
            "variance": variance.astype(np.float32),
        }

    def build(self, shapes: list[Shape]) -> None:
        shape = self.one_input(shapes)
        if self.axis not in (-1, len(shape)):
            raise arguments.expected(
                self.owner, "axis", f"-1 or {len(shape)} (the last axis of the input)", self.axis
            )
        if not self._statistics:
            raise ValueError(
                f"{self.owner}: expected mean and variance, or a call of adapt(data), before the "
                "layer is used"
            )
        channels = shape[-1]
        for name, values in self._statistics.items():
            if values.size not in (1, channels):
                raise arguments.expected(
                    self.owner, name, f"1 or {channels} numbers (the input's channels)", values.size
                )
            variable = self.add_weight(name, (channels,), "zeros", trainable=False)
            variable.assign(np.broadcast_to(values, (channels,)))

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        parameters = [graph.parameter(self, variable) for variable in self.weights]
        attributes = {"scale": False, "center": False, "training": False, "epsilon": EPSILON}
        value = self.one_input(inputs)
        return [graph.node("batch_norm", self, [value], parameters, attributes)]

    def get_config(self) -> dict[str, Any]:
        statistics = {name: values.tolist() for name, values in self._statistics.items()}
        return super().get_config() | {
            "axis": self.axis,
            "mean": None,
            "variance": None,
            **statistics,
        }


def _numbers(owner: str, argument: str, value: Any) -> NDArray[np.float64]:
    """One finite number or a row of them, as (C,) or (1,)."""
    try:
        numbers = np.array(value, np.float64).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.array([])
    if numbers.size == 0 or not np.isfinite(numbers).all():
        raise arguments.expected(owner, argument, "a finite number, or one per channel", value)
    return numbers


def _variances(owner: str, value: Any) -> NDArray[np.float64]:
    numbers = _numbers(owner, "variance", value)
    if (numbers < 0).any():
        raise arguments.expected(owner, "variance", "numbers >= 0", value)
    return numbers
