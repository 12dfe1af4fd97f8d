"""LayerScale."""

from typing import Any

from convlet.initializers import Constant
from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer, Shape


class LayerScale(Layer):
    """y = gamma * x with a trained factor per channel, the last axis (Touvron et al. 2021). At the
    end of a residual branch, where it starts near 0, it lets deep networks start as shallow ones.

    Args:
        init_value: of every factor.

    Weights: gamma (C,).
    """

    def __init__(self, init_value: float = 1e-6, **kwargs: Any):
        super().__init__(**kwargs)
        self.init_value = arguments.number(self.owner, "init_value", init_value)

    def build(self, shapes: list[Shape]) -> None:
        self.add_weight("gamma", self.one_input(shapes)[-1:], Constant(self.init_value))

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        gamma = graph.node("parameter", self, [], [graph.parameter(self, self.weights[0])])
        return [graph.node("multiply", self, [self.one_input(inputs), gamma])]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"init_value": self.init_value}
