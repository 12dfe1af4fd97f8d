"""From images to tokens: PatchEmbedding, ClassToken and PositionEmbedding, the first layers of a
vision transformer (Dosovitskiy et al. 2021)."""

from typing import Any

import numpy as np

from convlet import initializers, regularizers
from convlet.initializers import F32, Initializer
from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer, Shape
from convlet.layers.convolution import Size2
from convlet.layers.core import weight_config


class PatchEmbedding(Layer):
    """Cuts an image (H, W, C) into patches, row by row, and projects each to ``dim`` numbers:
    (H / patch * W / patch, dim). It is a convolution whose strides are its window.

    Args:
        patch_size: the patch's height and width, or one integer for both; they divide H and W.
        dim: the size of a token.
    """

    def __init__(
        self,
        patch_size: Size2,
        dim: int,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        owner = self.owner
        self.patch_size = arguments.pair(owner, "patch_size", patch_size)
        self.dim = arguments.integer(owner, "dim", dim)
        self.use_bias = arguments.flag(owner, "use_bias", use_bias)
        self.kernel_initializer = initializers.get(
            kernel_initializer, f"{owner}: kernel_initializer"
        )
        self.bias_initializer = initializers.get(bias_initializer, f"{owner}: bias_initializer")
        self.kernel_regularizer = regularizers.get(
            kernel_regularizer, f"{owner}: kernel_regularizer"
        )
        self.bias_regularizer = regularizers.get(bias_regularizer, f"{owner}: bias_regularizer")

    def build(self, shapes: list[Shape]) -> None:
        shape = self.one_input(shapes)
        if len(shape) != 3:
            raise arguments.expected(
                self.owner, "inputs", "images (N,H,W,C)", "(N," + ",".join(map(str, shape)) + ")"
            )
        if shape[0] % self.patch_size[0] or shape[1] % self.patch_size[1]:
            raise arguments.expected(
                self.owner,
                "patch_size",
                f"a divisor of the image's size {shape[:2]}",
                self.patch_size,
            )
        kernel = (*self.patch_size, shape[2], self.dim)
        self.add_weight("kernel", kernel, self.kernel_initializer, self.kernel_regularizer)
        if self.use_bias:
            self.add_weight("bias", (self.dim,), self.bias_initializer, self.bias_regularizer)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        parameters = [graph.parameter(self, variable) for variable in self.weights]
        attributes: dict[str, Any] = {"stride": list(self.patch_size), "padding": "valid"}
        patches = graph.node("conv2d", self, inputs, parameters, attributes)
        rows, columns, dim = graph.shape(patches)
        return [graph.node("reshape", self, [patches], (), {"shape": [rows * columns, dim]})]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "patch_size": list(self.patch_size),
            "dim": self.dim,
            "use_bias": self.use_bias,
            **weight_config(self, "kernel"),
            **weight_config(self, "bias"),
        }


def _token_shape(layer: Layer, shapes: list[Shape]) -> Shape:
    """(T, D) of the only input."""
    shape = layer.one_input(shapes)
    if len(shape) != 2:
        raise arguments.expected(
            layer.owner, "inputs", "tokens (N,T,D)", "(N," + ",".join(map(str, shape)) + ")"
        )
    return shape


class ClassToken(Layer):
    """Puts a learned token in front, the same for every sample: (T, D) -> (1 + T, D). The
    classifier reads its place after the last block. Weight token (1, D)."""

    def __init__(self, initializer: Any = "zeros", **kwargs: Any):
        super().__init__(**kwargs)
        self.initializer = initializers.get(initializer, f"{self.owner}: initializer")

    def build(self, shapes: list[Shape]) -> None:
        self.add_weight("token", (1, _token_shape(self, shapes)[1]), self.initializer)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        token = graph.node("parameter", self, [], [graph.parameter(self, self.weights[0])])
        return [graph.node("concatenate", self, [token, inputs[0]], (), {"axis": 0})]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"initializer": initializers.serialize(self.initializer)}


class FirstToken(Layer):
    """The first token, (T, D) -> (D,): what a classifier reads where a ClassToken was put."""

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        size = _token_shape(self, [graph.shape(value) for value in inputs])[1]
        token = graph.node("slice", self, inputs, (), {"axis": 0, "begin": 0, "size": 1})
        return [graph.node("reshape", self, [token], (), {"shape": [size]})]


class PositionEmbedding(Layer):
    """Adds to each token (T, D) a vector of its position, the same for every sample. Weight
    embeddings (T, D).

    Args:
        kind: "learned", or "sinusoidal" for fixed waves (Vaswani et al. 2017), of D even:
            embeddings[t, 2i] = sin(t / 10000^(2i/D)), embeddings[t, 2i+1] = cos(the same).
        initializer: of the learned embeddings; a truncated normal of standard deviation 0.02 when
            None.
    """

    def __init__(self, kind: str = "learned", initializer: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        if kind not in ("learned", "sinusoidal"):
            raise arguments.expected(self.owner, "kind", "'learned' or 'sinusoidal'", kind)
        self.kind = kind
        if initializer is None:
            initializer = initializers.TruncatedNormal(stddev=0.02)
        self.initializer = initializers.get(initializer, f"{self.owner}: initializer")

    def build(self, shapes: list[Shape]) -> None:
        shape = _token_shape(self, shapes)
        if self.kind == "learned":
            self.add_weight("embeddings", shape, self.initializer)
            return
        if shape[1] % 2:
            raise arguments.expected(self.owner, "inputs", "an even size of tokens", shape[1])
        self.add_weight("embeddings", shape, _Sinusoidal(), trainable=False)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        table = graph.node("parameter", self, [], [graph.parameter(self, self.weights[0])])
        return [graph.node("add", self, [inputs[0], table])]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "kind": self.kind,
            "initializer": initializers.serialize(self.initializer),
        }


class _Sinusoidal(Initializer):
    def values(self, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
        tokens, size = shape
        phase = np.arange(tokens)[:, None] / 10000.0 ** (np.arange(0, size, 2) / size)
        return np.stack([np.sin(phase), np.cos(phase)], -1).reshape(shape).astype(np.float32)
