"""BatchNormalization."""

from typing import Any

from convlet import initializers, regularizers
from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer, Shape
from convlet.layers.core import weight_config


class _Normalization(Layer):
    """What the normalizations share: x is centred and divided, then multiplied by gamma and moved
    by beta."""

    def __init__(
        self,
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        beta_regularizer: Any,
        gamma_regularizer: Any,
        beta_constraint: Any,
        gamma_constraint: Any,
        kwargs: dict[str, Any],
    ):
        super().__init__(**kwargs)
        owner = self.owner
        arguments.unsupported(
            owner, beta_constraint=beta_constraint, gamma_constraint=gamma_constraint
        )
        self.epsilon = arguments.number(owner, "epsilon", epsilon)
        if not self.epsilon > 0:
            raise arguments.expected(owner, "epsilon", "a number > 0", epsilon)
        self.center = arguments.flag(owner, "center", center)
        self.scale = arguments.flag(owner, "scale", scale)
        self.beta_initializer = initializers.get(beta_initializer, f"{owner}: beta_initializer")
        self.gamma_initializer = initializers.get(gamma_initializer, f"{owner}: gamma_initializer")
        self.beta_regularizer = regularizers.get(beta_regularizer, f"{owner}: beta_regularizer")
        self.gamma_regularizer = regularizers.get(gamma_regularizer, f"{owner}: gamma_regularizer")

    def add_gamma_and_beta(self, shape: Shape) -> None:
        if self.scale:
            self.add_weight("gamma", shape, self.gamma_initializer, self.gamma_regularizer)
        if self.center:
            self.add_weight("beta", shape, self.beta_initializer, self.beta_regularizer)

    def lower_normalization(
        self, graph: GraphBuilder, op: str, inputs: list[int], attributes: dict[str, Any]
    ) -> list[int]:
        parameters = [graph.parameter(self, variable) for variable in self.weights]
        attributes |= {"scale": self.scale, "center": self.center, "epsilon": self.epsilon}
        return [graph.node(op, self, [self.one_input(inputs)], parameters, attributes)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            **weight_config(self, "beta"),
            **weight_config(self, "gamma"),
        }


class BatchNormalization(_Normalization):
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta for each channel, the last axis
    (Ioffe & Szegedy 2015).

    In training mean and variance (biased) are those of the batch, over all axes but the last, and
    moving averages follow them; they change with the weights, so not when a loss is not finite.
    Otherwise, and in a layer with ``trainable = False``, the moving averages are used.

    Weights: gamma, beta, moving_mean, moving_variance, each (C,).

    Args:
        axis: -1, or the number of the last axis.
        momentum: the share of the old moving average that a step keeps, in [0, 1].
        epsilon: > 0.
        center, scale: whether there is a beta and a gamma.
        renorm, renorm_clipping, renorm_momentum: only their defaults; there is no renormalization.
        synchronized: True is the same as False: a model runs on one device.
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Any = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
            kwargs,
        )
        owner = self.owner
        self.axis = arguments.integer(owner, "axis", axis, -(2**31))
        self.momentum = arguments.number(owner, "momentum", momentum)
        if not 0 <= self.momentum <= 1:
            raise arguments.expected(owner, "momentum", "a number in [0, 1]", momentum)
        self.moving_mean_initializer = initializers.get(
            moving_mean_initializer, f"{owner}: moving_mean_initializer"
        )
        self.moving_variance_initializer = initializers.get(
            moving_variance_initializer, f"{owner}: moving_variance_initializer"
        )
        if arguments.flag(owner, "renorm", renorm):
            raise arguments.expected(owner, "renorm", "False (convlet does not have it)", renorm)
        arguments.unsupported(owner, renorm_clipping=renorm_clipping)
        self.synchronized = arguments.flag(owner, "synchronized", synchronized)

    def build(self, shapes: list[Shape]) -> None:
        shape = self.one_input(shapes)
        if self.axis not in (-1, len(shape)):
            raise arguments.expected(
                self.owner, "axis", f"-1 or {len(shape)} (the last axis of the input)", self.axis
            )
        channels = shape[-1:]
        self.add_gamma_and_beta(channels)
        for name, initializer in (
            ("moving_mean", self.moving_mean_initializer),
            ("moving_variance", self.moving_variance_initializer),
        ):
            self.add_weight(name, channels, initializer, trainable=False)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        attributes = {"momentum": self.momentum, "training": graph.trains(self)}
        return self.lower_normalization(graph, "batch_norm", inputs, attributes)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "axis": self.axis,
            "momentum": self.momentum,
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
            "synchronized": self.synchronized,
        }
