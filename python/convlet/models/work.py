"""How much arithmetic a model takes."""

import math
from collections.abc import Sequence
from typing import Any

from convlet import _core
from convlet.layers.base import Layer
from convlet.models.lowering import Lowering

RECURRENT = ("simple_rnn", "lstm", "gru")


class _Counting(Lowering):
    """Adds up the work of the nodes by the layers of the model that they come from."""

    def __init__(self, root: Layer):
        super().__init__(_core.Graph(), root)
        self.work: dict[int, int] = {}

    def node(
        self,
        op: str,
        layer: Layer,
        inputs: Sequence[int],
        parameters: Sequence[int] = (),
        attributes: dict[str, Any] | None = None,
    ) -> int:
        value = super().node(op, layer, inputs, parameters, attributes)
        sizes = [math.prod(self.graph.parameter_shape(p)) for p in parameters]
        amount = _multiplications(
            op, self.shape(value), [self.shape(i) for i in inputs], sizes, attributes or {}
        )
        for part in (*self._scopes, layer):
            self.work[id(part)] = self.work.get(id(part), 0) + 2 * amount
        return value


def _multiplications(
    op: str,
    output: Sequence[int],
    inputs: Sequence[Sequence[int]],
    parameters: Sequence[int],
    attributes: dict[str, Any],
) -> int:
    """Of one sample in a node of a graph; those of elementwise ops are left out, as usual."""
    if op == "conv2d":
        return output[0] * output[1] * parameters[0]
    if op == "dense":
        return math.prod(output[:-1]) * parameters[0]
    if op == "matmul":
        left = inputs[0]
        return math.prod(output) * left[-2 if attributes.get("transpose_a") else -1]
    if op == "attention":
        (tokens, query), (others, _), (_, value) = inputs
        return tokens * others * (query + value)
    if op in RECURRENT:
        return inputs[0][0] * (parameters[0] + parameters[1])
    return 0


def flops(model: Any) -> tuple[int, dict[int, int]]:
    """Multiplications and additions of the forward of one sample in the model's convolutions, dense
    layers, products, attention and recurrences: of the whole, and by the id of each layer (of each
    sub-layer too)."""
    graph = _Counting(model)
    inputs = [graph.input(t.name, t.sample_shape) for t in model.inputs]
    model.lower_network(graph, inputs)
    total = sum(graph.work.get(id(layer), 0) for layer in model.network_layers)
    return total, graph.work
