"""The DAG of layer calls between a model's inputs and outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from convlet.layers.base import GraphBuilder, Layer, Node, SymbolicTensor
from convlet.layers.core import InputLayer
from convlet.models.structure import Structure, unique_name

UNKNOWN = "unknown"


@dataclass
class Network:
    """layers: each once, inputs first, in Keras' order (by depth from the outputs, then by first
        use).
    nodes: the calls, each after those that it needs.
    inputs, outputs: where it begins and ends.
    structure: of the outputs.
    """

    layers: list[Layer] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[SymbolicTensor] = field(default_factory=list)
    outputs: list[SymbolicTensor] = field(default_factory=list)
    structure: Structure = None

    def lower(self, graph: GraphBuilder, inputs: Sequence[int]) -> list[int]:
        """Adds the nodes of all calls to ``graph``; returns the values of the outputs."""
        values = {
            (id(tensor.node), tensor.index): value
            for tensor, value in zip(self.inputs, inputs, strict=True)
        }
        for node in self.nodes:
            taken = [values[id(t.node), t.index] for t in node.inputs]
            with graph.mode(node.training):
                made = node.layer.lower(graph, taken)
            values |= {(id(node), i): value for i, value in enumerate(made)}
        return [values[id(t.node), t.index] for t in self.outputs]


def trace(
    inputs: Sequence[SymbolicTensor],
    outputs: Sequence[SymbolicTensor],
    owner: str,
    all_inputs: bool = True,
) -> Network:
    """Walks from the outputs back to the inputs; ValueError when they are not connected, or, with
    ``all_inputs``, when one is not needed."""
    sources = {id(tensor.node) for tensor in inputs}
    order: list[Node] = []  # each node after those that it needs
    first_use: dict[int, int] = {}
    seen: set[int] = set()

    # An explicit stack: a deep model must not meet Python's recursion limit.
    stack = [(tensor.node, False) for tensor in reversed(outputs)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        first_use.setdefault(id(node.layer), len(first_use))
        stack.append((node, True))
        if id(node) in sources:
            continue
        if isinstance(node.layer, InputLayer):
            raise ValueError(
                f"{owner}: outputs: they need the input {node.layer.name!r}, "
                "which is not among the model's inputs"
            )
        stack.extend((tensor.node, False) for tensor in reversed(node.inputs))
    for tensor in inputs:
        if all_inputs and id(tensor.node) not in seen:
            raise ValueError(
                f"{owner}: inputs: no output of the model depends on {tensor.node.layer.name!r}"
            )

    depth: dict[int, int] = {}
    layer_depth: dict[int, int] = {}
    layers: dict[int, Layer] = {}
    for node in reversed(order):
        level = max(depth.get(id(node), 0), layer_depth.get(id(node.layer), 0))
        depth[id(node)] = layer_depth[id(node.layer)] = level
        layers[id(node.layer)] = node.layer
        if id(node) not in sources:
            for tensor in node.inputs:
                depth[id(tensor.node)] = max(depth.get(id(tensor.node), 0), level + 1)
    ranked = sorted(layers, key=lambda key: (-layer_depth[key], first_use[key]))
    nodes = [node for node in order if id(node) not in sources]
    return Network([layers[key] for key in ranked], nodes, list(inputs), list(outputs))


def name_layers(layers: Sequence[Layer], owner: str) -> None:
    """Gives the automatically named layers names that are unique in the model; a name that is free
    stays. ValueError when two layers were given one name."""
    taken: set[str] = set()
    for layer in layers:
        if not layer.auto_named:
            if layer.name in taken:
                raise ValueError(
                    f"{owner}: expected layers with different names, got two named {layer.name!r}"
                )
            taken.add(layer.name)
    for layer in layers:
        if layer.auto_named:
            layer.name = unique_name(layer.name, taken)
            taken.add(layer.name)


def final_activation(output: SymbolicTensor) -> str | None:
    """The activation that makes a value: its name, None for a linear layer, UNKNOWN where the last
    layer has no activation of its own (pooling, Add, ...)."""
    layer: Any = output.node.layer
    while hasattr(layer, "outputs"):  # a model in the model
        output = layer.outputs[output.index]
        layer = output.node.layer
    return getattr(layer, "activation", UNKNOWN)
