"""Conv2D and DepthwiseConv2D."""

from typing import Any

from convlet import initializers, regularizers
from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer, Shape
from convlet.layers.core import lower_with_activation, weight_config

Size2 = int | tuple[int, int]
Padding = str | Size2 | tuple[tuple[int, int], tuple[int, int]]


class _Convolution(Layer):
    """What the convolutions share: a window that moves over (H, W, C)."""

    def __init__(
        self,
        kernel_size: Size2,
        strides: Size2,
        padding: Padding,
        data_format: str | None,
        dilation_rate: Size2,
        activation: str | None,
        use_bias: bool,
        bias_initializer: Any,
        bias_regularizer: Any,
        constraints: dict[str, Any],
        kwargs: dict[str, Any],
    ):
        super().__init__(**kwargs)
        owner = self.owner
        arguments.unsupported(owner, **constraints)
        arguments.channels_last(owner, data_format)
        self.kernel_size = arguments.pair(owner, "kernel_size", kernel_size)
        self.strides = arguments.pair(owner, "strides", strides)
        self.padding = arguments.padding(owner, padding)
        self.dilation_rate = arguments.pair(owner, "dilation_rate", dilation_rate)
        self.activation = arguments.activation(owner, activation)
        self.use_bias = arguments.flag(owner, "use_bias", use_bias)
        self.bias_initializer = initializers.get(bias_initializer, f"{owner}: bias_initializer")
        self.bias_regularizer = regularizers.get(bias_regularizer, f"{owner}: bias_regularizer")

    def channels(self, shapes: list[Shape]) -> int:
        """C of an input (H, W, C)."""
        shape = self.one_input(shapes)
        if len(shape) != 3:
            raise arguments.expected(
                self.owner, "inputs", "images (N,H,W,C)", "(N," + ",".join(map(str, shape)) + ")"
            )
        return shape[-1]

    def window_attributes(self, groups: int) -> dict[str, Any]:
        """The attributes of the graph's conv2d."""
        return {
            "stride": list(self.strides),
            **arguments.padding_attribute(self.padding),
            "dilation": list(self.dilation_rate),
            "groups": groups,
        }

    def lower_convolution(self, graph: GraphBuilder, inputs: list[int], groups: int) -> list[int]:
        attributes = self.window_attributes(groups)
        return [lower_with_activation(graph, self, "conv2d", inputs, self.activation, attributes)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": arguments.padding_config(self.padding),
            "dilation_rate": list(self.dilation_rate),
            "activation": self.activation,
            "use_bias": self.use_bias,
            **weight_config(self, "bias"),
        }


class Conv2D(_Convolution):
    """2-D convolution: (H, W, C) -> (P, Q, filters). Kernel (R, S, C / groups, filters).

    Args:
        filters: output channels.
        kernel_size: (R, S), or one integer for both.
        strides, dilation_rate: integers or pairs.
        padding: "valid" (none), "same" (P = ceil(H / stride); the odd row and column of zeros
            goes to the bottom and right), or numbers of zeros as in ``ops.conv2d``: an integer,
            (height, width) or ((top, bottom), (left, right)).
        groups: divides C and filters.
        activation: None or a name that layers.Activation takes.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Size2,
        strides: Size2 = (1, 1),
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: Size2 = (1, 1),
        groups: int = 1,
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
            {"kernel_constraint": kernel_constraint, "bias_constraint": bias_constraint},
            {"activity_regularizer": activity_regularizer, **kwargs},
        )
        owner = self.owner
        self.filters = arguments.integer(owner, "filters", filters)
        self.groups = arguments.integer(owner, "groups", groups)
        if self.filters % self.groups:
            raise arguments.expected(
                owner, "groups", f"a divisor of filters = {self.filters}", self.groups
            )
        self.kernel_initializer = initializers.get(
            kernel_initializer, f"{owner}: kernel_initializer"
        )
        self.kernel_regularizer = regularizers.get(
            kernel_regularizer, f"{owner}: kernel_regularizer"
        )

    def build(self, shapes: list[Shape]) -> None:
        channels = self.channels(shapes)
        if channels % self.groups:
            raise arguments.expected(
                self.owner, "groups", f"a divisor of the {channels} input channels", self.groups
            )
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.add_weight("kernel", shape, self.kernel_initializer, self.kernel_regularizer)
        if self.use_bias:
            self.add_weight("bias", (self.filters,), self.bias_initializer, self.bias_regularizer)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        return self.lower_convolution(graph, inputs, self.groups)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "filters": self.filters,
            "groups": self.groups,
            **weight_config(self, "kernel"),
        }


class DepthwiseConv2D(_Convolution):
    """Each input channel is convolved with its own ``depth_multiplier`` windows:
    (H, W, C) -> (P, Q, C * depth_multiplier). Kernel (R, S, C, depth_multiplier), as in Keras."""

    def __init__(
        self,
        kernel_size: Size2,
        strides: Size2 = (1, 1),
        padding: Padding = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Size2 = (1, 1),
        activation: str | None = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
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
            {"depthwise_constraint": depthwise_constraint, "bias_constraint": bias_constraint},
            {"activity_regularizer": activity_regularizer, **kwargs},
        )
        owner = self.owner
        self.depth_multiplier = arguments.integer(owner, "depth_multiplier", depth_multiplier)
        self.depthwise_initializer = initializers.get(
            depthwise_initializer, f"{owner}: depthwise_initializer"
        )
        self.depthwise_regularizer = regularizers.get(
            depthwise_regularizer, f"{owner}: depthwise_regularizer"
        )
        self.input_channels = 0

    def build(self, shapes: list[Shape]) -> None:
        self.input_channels = channels = self.channels(shapes)
        outputs = channels * self.depth_multiplier
        self.add_weight(
            "kernel",
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            self.depthwise_regularizer,
            # Output channel c * m + j reads input channel c: the same numbers in the same order.
            graph_shape=(*self.kernel_size, 1, outputs),
        )
        if self.use_bias:
            self.add_weight("bias", (outputs,), self.bias_initializer, self.bias_regularizer)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        return self.lower_convolution(graph, inputs, self.input_channels)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "depth_multiplier": self.depth_multiplier,
            **weight_config(self, "depthwise"),
        }
