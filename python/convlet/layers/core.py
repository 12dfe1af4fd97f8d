"""Input, Dense and Rescaling."""

import weakref
from collections.abc import Sequence
from typing import Any

from convlet import initializers, regularizers
from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer, Node, Shape, SymbolicTensor


class InputLayer(Layer):
    """The place where data enters a model. Data may be uint8, an integer or a float; it is computed
    with as float32.

    Args:
        shape: of one sample, (H, W, C) or (features,).
    """

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        batch_size: int | None = None,
        dtype: str | None = None,
        name: str | None = None,
        *,
        input_shape: Sequence[int] | None = None,
        trainable: bool = True,
    ):
        super().__init__(name=name, trainable=trainable)
        value = input_shape if shape is None else shape
        self.sample_shape = arguments.sample_shape(self.owner, "shape", value)
        self.built = True

    def start(self) -> SymbolicTensor:
        """The symbolic tensor of the data that enters here, always the same."""
        nodes = self.nodes
        if not nodes:
            nodes = [Node(self, [], [self.sample_shape])]
            self._nodes = [weakref.ref(nodes[0])]
        return nodes[0].outputs[0]

    def get_config(self) -> dict[str, Any]:
        return {"shape": list(self.sample_shape), "name": self.name}


def Input(
    shape: Sequence[int] | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    name: str | None = None,
) -> SymbolicTensor:
    """The symbolic tensor that a model starts from. ``shape`` is of one sample, e.g. (32, 32, 3);
    batch_size and dtype are accepted and not needed: a model takes any batch and any number
    type."""
    return InputLayer(shape, batch_size, dtype, name).start()


class Dense(Layer):
    """y = activation(x @ kernel + bias) over the last axis: (..., I) -> (..., units).

    Args:
        units: the size of the output's last axis.
        activation: None or a name that layers.Activation takes.
    """

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        if "input_dim" in kwargs:
            kwargs["input_shape"] = (kwargs.pop("input_dim"),)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        owner = self.owner
        arguments.unsupported(
            owner, kernel_constraint=kernel_constraint, bias_constraint=bias_constraint
        )
        self.units = arguments.integer(owner, "units", units)
        self.activation = arguments.activation(owner, activation)
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
        inputs = self.one_input(shapes)[-1]
        self.add_weight(
            "kernel", (inputs, self.units), self.kernel_initializer, self.kernel_regularizer
        )
        if self.use_bias:
            self.add_weight("bias", (self.units,), self.bias_initializer, self.bias_regularizer)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        return [lower_with_activation(graph, self, "dense", inputs, self.activation, {})]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "units": self.units,
            "activation": self.activation,
            "use_bias": self.use_bias,
            **weight_config(self, "kernel"),
            **weight_config(self, "bias"),
        }


class Rescaling(Layer):
    """y = x * scale + offset, e.g. Rescaling(1 / 255) for uint8 images."""

    def __init__(self, scale: float, offset: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale = arguments.number(self.owner, "scale", scale)
        self.offset = arguments.number(self.owner, "offset", offset)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        attributes = {"factor": self.scale, "offset": self.offset}
        return [graph.node("scale", self, [self.one_input(inputs)], (), attributes)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"scale": self.scale, "offset": self.offset}


def lower_activation(
    graph: GraphBuilder,
    layer: Layer,
    value: int,
    activation: str | None,
    alpha: float | None = None,
) -> int:
    """The node of an activation by name; none for None. ``alpha``: as in csrc/ops/activation.h."""
    if activation is None:
        return value
    if activation in arguments.ROW_ACTIVATIONS:
        return graph.node(activation, layer, [value])
    attributes: dict[str, Any] = {"activation": activation}
    if alpha is not None:
        attributes["alpha"] = alpha
    return graph.node("activation", layer, [value], (), attributes)


def lower_with_activation(
    graph: GraphBuilder,
    layer: Layer,
    op: str,
    inputs: list[int],
    activation: str | None,
    attributes: dict[str, Any],
) -> int:
    """A node with all of the layer's weights, which carries the activation itself where it can."""
    parameters = [graph.parameter(layer, variable) for variable in layer.weights]
    if activation in arguments.FUSED_ACTIVATIONS:
        return graph.node(op, layer, inputs, parameters, attributes | {"activation": activation})
    value = graph.node(op, layer, inputs, parameters, attributes)
    return lower_activation(graph, layer, value, activation)


def weight_config(layer: Any, weight: str) -> dict[str, Any]:
    """The initializer and regularizer of a weight, for get_config."""
    regularizer = getattr(layer, f"{weight}_regularizer")
    return {
        f"{weight}_initializer": initializers.serialize(getattr(layer, f"{weight}_initializer")),
        f"{weight}_regularizer": None if regularizer is None else regularizer.get_config(),
    }
