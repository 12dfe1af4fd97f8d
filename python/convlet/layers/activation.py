"""Activation, and the activations that are layers of their own."""

from typing import Any

from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer
from convlet.layers.core import lower_activation


class Activation(Layer):
    """y = activation(x).

    Elementwise, after a convolution or Dense in the same pass over memory: "relu", "relu6",
    "leaky_relu" (slope 0.2), "elu", "selu", "gelu" (exact), "silu" or "swish", "hard_silu" or
    "hard_swish", "sigmoid", "hard_sigmoid", "tanh", "softplus" and "exponential". Over the last
    axis: "softmax" and "log_softmax". "linear" and None do nothing. The formulas are in
    ``convlet.ops``.
    """

    def __init__(self, activation: str | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = arguments.activation(self.owner, activation)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        return [lower_activation(graph, self, self.one_input(inputs), self.activation)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"activation": self.activation}


class ReLU(Layer):
    """y = min(max(x, 0), max_value), or with a negative_slope y = x where x > 0, else
    negative_slope * x.

    Args:
        max_value: a number > 0, or None for no upper limit.
        negative_slope: a number >= 0; together with max_value only 0.
        threshold: 0; Keras' other thresholds are refused.
    """

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float | None = 0.0,
        threshold: float | None = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.max_value = None
        if max_value is not None:
            self.max_value = arguments.number(self.owner, "max_value", max_value)
            if self.max_value <= 0:
                raise arguments.expected(self.owner, "max_value", "a number > 0 or None", max_value)
        self.negative_slope = _not_negative(self.owner, "negative_slope", negative_slope or 0.0)
        if self.negative_slope and self.max_value is not None:
            raise arguments.expected(
                self.owner, "negative_slope", "0 where there is a max_value", negative_slope
            )
        if threshold not in (None, 0):
            raise arguments.expected(self.owner, "threshold", "0", threshold)

    @property
    def activation(self) -> str:
        if self.max_value is not None:
            return "relu6"
        return "leaky_relu" if self.negative_slope else "relu"

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        alpha = self.negative_slope or None if self.max_value is None else self.max_value
        return [lower_activation(graph, self, self.one_input(inputs), self.activation, alpha)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
        }


class LeakyReLU(Layer):
    """y = x where x > 0, else negative_slope * x.

    Args:
        negative_slope: a number >= 0.
    """

    activation = "leaky_relu"

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any):
        super().__init__(**kwargs)
        self.negative_slope = _not_negative(self.owner, "negative_slope", negative_slope)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        value = self.one_input(inputs)
        return [lower_activation(graph, self, value, "leaky_relu", self.negative_slope)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"negative_slope": self.negative_slope}


class ELU(Layer):
    """y = x where x > 0, else alpha * (exp(x) - 1).

    Args:
        alpha: a number >= 0.
    """

    activation = "elu"

    def __init__(self, alpha: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.alpha = _not_negative(self.owner, "alpha", alpha)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        return [lower_activation(graph, self, self.one_input(inputs), "elu", self.alpha)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"alpha": self.alpha}


class Softmax(Layer):
    """y = exp(x) / sum exp(x) over the last axis."""

    activation = "softmax"

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        if axis != -1:
            raise arguments.expected(self.owner, "axis", "-1 (the last)", axis)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        return [lower_activation(graph, self, self.one_input(inputs), "softmax")]


def _not_negative(owner: str, argument: str, value: Any) -> float:
    number = arguments.number(owner, argument, value)
    if number < 0:
        raise arguments.expected(owner, argument, "a number >= 0", value)
    return number
