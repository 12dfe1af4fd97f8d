"""SeparableConv2D."""

from typing import Any

from convlet import initializers, regularizers
from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Shape
from convlet.layers.convolution import Padding, Size2, _Convolution
from convlet.layers.core import lower_activation, weight_config


class SeparableConv2D(_Convolution):
    """A convolution of each channel by itself, then a 1x1 convolution that mixes them:
    (H, W, C) -> (P, Q, filters). Weights, as in Keras: depthwise_kernel
    (R, S, C, depth_multiplier), pointwise_kernel (1, 1, C * depth_multiplier, filters), bias
    (filters,). Chollet 2017, https://arxiv.org/abs/1610.02357.

    Args:
        filters: output channels.
        kernel_size, strides, padding, dilation_rate: of the first convolution; see Conv2D.
        depth_multiplier: how many windows each channel is convolved with.
        activation: applied at the end; None or a name that layers.Activation takes.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Size2,
        strides: Size2 = (1, 1),
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: Size2 = (1, 1),
        depth_multiplier: int = 1,
        activation: str | None = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            {
                "depthwise_constraint": depthwise_constraint,
                "pointwise_constraint": pointwise_constraint,
                "bias_constraint": bias_constraint,
            },
            {"activity_regularizer": activity_regularizer, **kwargs},
        )
        owner = self.owner
        self.filters = arguments.integer(owner, "filters", filters)
        self.depth_multiplier = arguments.integer(owner, "depth_multiplier", depth_multiplier)
        for weight, initializer, regularizer in (
            ("depthwise", depthwise_initializer, depthwise_regularizer),
            ("pointwise", pointwise_initializer, pointwise_regularizer),
        ):
            name = f"{weight}_initializer"
            setattr(self, name, initializers.get(initializer, f"{owner}: {name}"))
            name = f"{weight}_regularizer"
            setattr(self, name, regularizers.get(regularizer, f"{owner}: {name}"))
        self.input_channels = 0

    def build(self, shapes: list[Shape]) -> None:
        self.input_channels = channels = self.channels(shapes)
        between = channels * self.depth_multiplier
        self.add_weight(
            "depthwise_kernel",
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            self.depthwise_regularizer,
            # Channel c * m + j reads input channel c: the same numbers in the same order.
            graph_shape=(*self.kernel_size, 1, between),
        )
        self.add_weight(
            "pointwise_kernel",
            (1, 1, between, self.filters),
            self.pointwise_initializer,
            self.pointwise_regularizer,
        )
        if self.use_bias:
            self.add_weight("bias", (self.filters,), self.bias_initializer, self.bias_regularizer)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        depthwise, *pointwise = (graph.parameter(self, weight) for weight in self.weights)
        attributes = self.window_attributes(self.input_channels)
        value = graph.node("conv2d", self, inputs, [depthwise], attributes)
        value = graph.node("conv2d", self, [value], pointwise, {})
        return [lower_activation(graph, self, value, self.activation)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "filters": self.filters,
            "depth_multiplier": self.depth_multiplier,
            **weight_config(self, "depthwise"),
            **weight_config(self, "pointwise"),
        }
