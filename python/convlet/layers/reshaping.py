"""Flatten, Reshape and ZeroPadding2D."""

import math
from collections.abc import Sequence
from typing import Any

from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer
from convlet.layers.convolution import Padding


class Flatten(Layer):
    """(...) -> (product of the sizes,), in row-major order."""

    def __init__(self, data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.channels_last(self.owner, data_format)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        value = self.one_input(inputs)
        return [
            graph.node("reshape", self, [value], (), {"shape": [math.prod(graph.shape(value))]})
        ]


class Reshape(Layer):
    """(...) -> target_shape, in row-major order. One size of target_shape may be -1: what is
    left."""

    def __init__(self, target_shape: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        ok = isinstance(target_shape, Sequence) and 1 <= len(target_shape) <= 7
        sizes = list(target_shape) if ok else []
        ok = ok and all(arguments.is_integer(s) and (s == -1 or s >= 1) for s in sizes)
        if not ok or sizes.count(-1) > 1:
            raise arguments.expected(
                self.owner,
                "target_shape",
                "1 to 7 positive sizes, of which one may be -1",
                target_shape,
            )
        self.target_shape = tuple(int(s) for s in sizes)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        value = self.one_input(inputs)
        shape = graph.shape(value)
        known = math.prod(s for s in self.target_shape if s != -1)
        rest, remainder = divmod(math.prod(shape), known)
        if remainder or (-1 not in self.target_shape and rest != 1):
            raise arguments.expected(
                self.owner,
                "target_shape",
                f"a shape of {math.prod(shape)} elements",
                self.target_shape,
            )
        sizes = [rest if s == -1 else s for s in self.target_shape]
        return [graph.node("reshape", self, [value], (), {"shape": sizes})]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"target_shape": list(self.target_shape)}


class ZeroPadding2D(Layer):
    """Zeros around an image: (H, W, C) -> (top + H + bottom, left + W + right, C).

    Args:
        padding: an integer, (height, width), or ((top, bottom), (left, right)).
    """

    def __init__(
        self,
        padding: Padding = (1, 1),
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        arguments.channels_last(self.owner, data_format)
        self.padding = arguments.sides(self.owner, "padding", padding)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        attributes = {"pad": [*self.padding[0], *self.padding[1]]}
        return [graph.node("pad2d", self, [self.one_input(inputs)], (), attributes)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"padding": [list(p) for p in self.padding]}
