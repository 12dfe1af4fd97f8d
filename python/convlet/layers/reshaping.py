"""Flatten, Reshape, Permute, ZeroPadding2D, Cropping2D and UpSampling2D."""

import math
from collections.abc import Sequence
from typing import Any

from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer
from convlet.layers.convolution import Padding, Size2


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


class Permute(Layer):
    """The axes in another order, without the batch: axis i of the output is axis dims[i] of the
    input.

    Args:
        dims: counted from 1, as in Keras: (2, 1) swaps two axes.
    """

    def __init__(self, dims: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        ok = isinstance(dims, Sequence) and all(arguments.is_integer(d) for d in dims)
        if not ok or sorted(dims) != list(range(1, len(dims) + 1)):
            raise arguments.expected(self.owner, "dims", "each of 1, 2, ... once", dims)
        self.dims = tuple(int(d) for d in dims)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        value = self.one_input(inputs)
        rank = len(graph.shape(value))
        if rank != len(self.dims):
            raise arguments.expected(
                self.owner, "dims", f"{rank} axes for samples {graph.shape(value)}", self.dims
            )
        order = [axis - 1 for axis in self.dims]
        return [graph.node("transpose", self, [value], (), {"permutation": order})]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"dims": list(self.dims)}


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


class Cropping2D(Layer):
    """An image without its borders: (top + H + bottom, left + W + right, C) -> (H, W, C).

    Args:
        cropping: an integer, (height, width), or ((top, bottom), (left, right)).
    """

    def __init__(
        self,
        cropping: Size2 | tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        arguments.channels_last(self.owner, data_format)
        self.cropping = arguments.sides(self.owner, "cropping", cropping)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        value = self.one_input(inputs)
        shape = graph.shape(value)
        if len(shape) != 3:
            raise arguments.expected(self.owner, "inputs", "images (N,H,W,C)", (None, *shape))
        for axis, (before, after) in enumerate(self.cropping):
            size = shape[axis] - before - after
            if size < 1:
                raise arguments.expected(
                    self.owner, "cropping", f"less than the image {shape}", self.cropping
                )
            if before or after:
                attributes = {"axis": axis, "begin": before, "size": size}
                value = graph.node("slice", self, [value], (), attributes)
        return [value]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"cropping": [list(c) for c in self.cropping]}


class UpSampling2D(Layer):
    """An image enlarged by whole factors: (H, W, C) -> (H * size[0], W * size[1], C).

    Args:
        size: an integer or (height, width).
        interpolation: "nearest" repeats pixels, "bilinear" goes between their centres.
    """

    def __init__(
        self,
        size: Size2 = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        arguments.channels_last(self.owner, data_format)
        self.size = arguments.pair(self.owner, "size", size)
        if interpolation not in ("nearest", "bilinear"):
            raise arguments.expected(
                self.owner, "interpolation", "'nearest' or 'bilinear'", interpolation
            )
        self.interpolation = interpolation

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        attributes = {"size": list(self.size), "interpolation": self.interpolation}
        return [graph.node("upsample2d", self, [self.one_input(inputs)], (), attributes)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "size": list(self.size),
            "interpolation": self.interpolation,
        }
