"""Batch, layer, group and instance normalization."""

from collections.abc import Sequence
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

    def channels(self, shapes: list[Shape], axis: int) -> Shape:
        """(C,) of the only input, whose last axis must be ``axis``."""
        shape = self.one_input(shapes)
        if axis not in (-1, len(shape)):
            raise arguments.expected(
                self.owner, "axis", f"-1 or {len(shape)} (the last axis of the input)", axis
            )
        return shape[-1:]

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
        self.axis = arguments.integer(owner, "axis", axis, -1)
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
        channels = self.channels(shapes, self.axis)
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


class LayerNormalization(_Normalization):
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta with the mean and the biased
    variance over the last axes (Ba, Kiros & Hinton 2016), in training and after.

    Weights: gamma, beta, of the shape of those axes.

    Args:
        axis: -1, or a list of the last axes, such as [-2, -1], or [1, 2, 3] for all of an image.
        epsilon: > 0.
        center, scale: whether there is a beta and a gamma.
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
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
        axes = (axis,) if arguments.is_integer(axis) else axis
        listed = isinstance(axes, Sequence) and not isinstance(axes, str) and len(axes) > 0
        if not listed or not all(arguments.is_integer(a) for a in axes):
            raise arguments.expected(self.owner, "axis", "an integer or a list of them", axis)
        self.axis = [int(a) for a in axes]

    def trailing(self, shape: Shape) -> int:
        """How many of the last axes of an input of this sample shape are normalized."""
        rank = len(shape) + 1
        found = sorted(a + rank if a < 0 else a for a in self.axis)
        count = len(found)
        if count >= rank or found != list(range(rank - count, rank)):
            raise arguments.expected(
                self.owner, "axis", f"the last axes of an input with {rank} axes", self.axis
            )
        return count

    def build(self, shapes: list[Shape]) -> None:
        shape = self.one_input(shapes)
        self.add_gamma_and_beta(shape[-self.trailing(shape) :])

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        axes = self.trailing(graph.shape(self.one_input(inputs)))
        return self.lower_normalization(graph, "layer_norm", inputs, {"axes": axes})

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}


class GroupNormalization(_Normalization):
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta with the mean and the biased
    variance of a group of neighbouring channels, over all positions of a sample (Wu & He 2018), in
    training and after.

    Weights: gamma, beta, each (C,).

    Args:
        groups: divides the channels C; -1 for C groups (instance normalization).
        axis: -1, or the number of the last axis.
        epsilon: > 0.
        center, scale: whether there is a beta and a gamma.
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
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
        self.groups = arguments.integer(self.owner, "groups", groups, -1)
        if self.groups == 0:
            raise arguments.expected(self.owner, "groups", "a number >= 1, or -1", groups)
        self.axis = arguments.integer(self.owner, "axis", axis, -1)

    def build(self, shapes: list[Shape]) -> None:
        channels = self.channels(shapes, self.axis)
        if channels[0] % self.groups:
            raise arguments.expected(
                self.owner, "groups", f"a divisor of the {channels[0]} channels", self.groups
            )
        self.add_gamma_and_beta(channels)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        channels = graph.shape(self.one_input(inputs))[-1]
        groups = channels if self.groups == -1 else self.groups
        return self.lower_normalization(graph, "group_norm", inputs, {"groups": groups})

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"groups": self.groups, "axis": self.axis}


class InstanceNormalization(GroupNormalization):
    """GroupNormalization with a group for each channel (Ulyanov, Vedaldi & Lempitsky 2016)."""

    def __init__(self, axis: int = -1, epsilon: float = 0.001, **kwargs: Any):
        super().__init__(-1, axis, epsilon, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["groups"]
        return config
