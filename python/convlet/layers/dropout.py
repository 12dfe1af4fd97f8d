"""Dropout of elements, of channels, and of whole branches."""

from typing import Any

from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer


class _Dropout(Layer):
    noise: str

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = arguments.number(self.owner, "rate", rate)
        if not 0 <= self.rate < 1:
            raise arguments.expected(self.owner, "rate", "a number in [0, 1)", rate)
        self.seed = seed

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        x = self.one_input(inputs)
        if not graph.training:
            return [x]
        return [graph.node("dropout", self, [x], (), {"rate": self.rate, "noise": self.noise})]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "seed": self.seed}


class Dropout(_Dropout):
    """In training, sets each element to 0 with probability ``rate`` and divides the others by
    1 - rate; otherwise the identity.

    Args:
        rate: in [0, 1).
        seed: accepted as in Keras; the model's seed decides (convlet.set_random_seed).
    """

    noise = "element"

    def __init__(
        self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(rate, seed, **kwargs)
        arguments.unsupported(self.owner, noise_shape=noise_shape)


class SpatialDropout2D(_Dropout):
    """In training, sets whole channels of an image (H, W, C) to 0 with probability ``rate`` and
    divides the others by 1 - rate; otherwise the identity (Tompson et al. 2015).

    Args:
        rate: in [0, 1).
        seed: accepted as in Keras; the model's seed decides (convlet.set_random_seed).
    """

    noise = "channel"

    def __init__(
        self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(rate, seed, **kwargs)
        arguments.channels_last(self.owner, data_format)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        shape = graph.shape(self.one_input(inputs))
        if len(shape) != 3:
            raise arguments.expected(self.owner, "inputs", "images (N,H,W,C)", (None, *shape))
        return super().lower(graph, inputs)


class StochasticDepth(_Dropout):
    """In training, sets a whole sample to 0 with probability ``rate`` and divides it by 1 - rate
    otherwise; elsewhere the identity (Huang et al. 2016). It goes at the end of a residual branch,
    before the sum: ``x + StochasticDepth(rate)(branch(x))``.

    Args:
        rate: in [0, 1); deeper blocks usually get more.
        seed: accepted as in other layers; the model's seed decides (convlet.set_random_seed).
    """

    noise = "sample"
