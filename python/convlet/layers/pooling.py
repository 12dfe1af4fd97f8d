"""Max and average pooling, over windows and over whole images."""

from typing import Any

from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer
from convlet.layers.convolution import Padding, Size2


class _Pooling2D(Layer):
    op: str

    def __init__(
        self,
        pool_size: Size2 = (2, 2),
        strides: Size2 | None = None,
        padding: Padding = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        owner = self.owner
        arguments.channels_last(owner, data_format)
        self.pool_size = arguments.pair(owner, "pool_size", pool_size)
        self.strides = (
            self.pool_size if strides is None else arguments.pair(owner, "strides", strides)
        )
        self.padding = arguments.padding(owner, padding)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        attributes = {
            "pool_size": list(self.pool_size),
            "stride": list(self.strides),
            **arguments.padding_attribute(self.padding),
        }
        return [graph.node(self.op, self, [self.one_input(inputs)], (), attributes)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "pool_size": list(self.pool_size),
            "strides": list(self.strides),
            "padding": arguments.padding_config(self.padding),
        }


class MaxPooling2D(_Pooling2D):
    """The largest value of each window: (H, W, C) -> (P, Q, C).

    Args:
        pool_size, strides: integers or pairs; ``strides`` is pool_size when None.
        padding: "valid", "same", or numbers as in Conv2D, at most half the window. Cells of the
            padding never are the largest.
    """

    op = "max_pool2d"


class AveragePooling2D(_Pooling2D):
    """The mean of each window, over its cells inside the image: (H, W, C) -> (P, Q, C). Arguments
    as in MaxPooling2D."""

    op = "avg_pool2d"


class _GlobalPooling2D(Layer):
    op: str

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.channels_last(self.owner, data_format)
        self.keepdims = arguments.flag(self.owner, "keepdims", keepdims)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        attributes = {"keepdims": self.keepdims}
        return [graph.node(self.op, self, [self.one_input(inputs)], (), attributes)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"keepdims": self.keepdims}


class GlobalAveragePooling2D(_GlobalPooling2D):
    """The mean of each channel: (H, W, C) -> (C,), or (1, 1, C) with keepdims."""

    op = "global_avg_pool2d"


class GlobalMaxPooling2D(_GlobalPooling2D):
    """The largest value of each channel: (H, W, C) -> (C,), or (1, 1, C) with keepdims."""

    op = "global_max_pool2d"
