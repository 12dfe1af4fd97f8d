"""From a model's layers to the compiled module's graph."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from convlet.layers.base import Layer, Shape
from convlet.layers.variable import Variable


@dataclass(frozen=True)
class Parameter:
    """A weight as a parameter of a graph."""

    name: str  # "conv2d/kernel"
    variable: Variable
    id: int
    trainable: bool


class Lowering:
    """Adds nodes to a ``_core.Graph`` and remembers which parameter is which weight. A layer that
    is called twice gives two nodes with one set of parameters.

    Args:
        root: the model that is lowered, whose name is no part of its layers' names; None for a
            layer by itself, which is only asked for its shapes.
        decays: whether the optimizer's weight decay applies to a weight of a name.
    """

    def __init__(
        self,
        graph: Any,
        root: Layer | None = None,
        decays: Callable[[str, Variable], bool] = lambda name, variable: True,
    ):
        self.graph = graph
        self._root, self._decays = root, decays
        self._parameters: dict[int, Parameter] = {}
        self._scopes: list[Layer] = []
        self.training = True  # False inside a call with training=False

    @property
    def parameters(self) -> list[Parameter]:
        return list(self._parameters.values())

    def input(self, name: str, shape: Sequence[int]) -> int:
        return self.graph.input(name, list(shape))

    def output(self, value: int) -> None:
        self.graph.output(value)

    def shape(self, value: int) -> Shape:
        return tuple(self.graph.shape(value))

    def trains(self, layer: Layer) -> bool:
        """Whether the layer and all that it is in are trainable, and none of it is called with
        training=False."""
        return self.training and all(
            owner.trainable for owner in self._owners([*self._scopes, layer])
        )

    def _owners(self, path: list[Layer]) -> list[Layer]:
        return path if self._root is None else [self._root, *path]

    def parameter(self, layer: Layer, variable: Variable) -> int:
        """The parameter of a weight of ``layer``, added when it is met for the first time."""
        return self._parameter(variable, self._scopes, layer)

    def weight(self, variable: Variable) -> int:
        """The parameter of a weight that belongs to a layer whose ``call`` is being lowered, or to
        one of its sub-layers."""
        owners = [self._root, *self._scopes]
        if owners == [None]:  # an op by itself, to learn its shape
            return self._parameter(variable, [], None)
        for depth in range(len(owners) - 1, -1, -1):
            owner = owners[depth]
            if owner is None:
                break
            if any(variable is own for own in owner._variables):
                return self._parameter(variable, self._scopes[:depth], None)
            for layer in owner.sublayers:
                if any(variable is own for own in layer._variables):
                    return self._parameter(variable, self._scopes[:depth], layer)
        innermost = self._scopes[-1] if self._scopes else self._root
        raise ValueError(
            f"{innermost.owner}: call: the weight {variable.name!r} belongs to none of its layers"
        )

    def _parameter(self, variable: Variable, scopes: list[Layer], layer: Layer | None) -> int:
        known = self._parameters.get(id(variable))
        if known is None:
            path = scopes if layer is None else [*scopes, layer]
            name = "/".join([*(owner.name for owner in path), variable.name])
            owners = self._owners(path)
            trainable = variable.trainable and all(owner.trainable for owner in owners)
            penalty = variable.regularizer if trainable else None
            known = Parameter(
                name,
                variable,
                self.graph.parameter(
                    name,
                    list(variable.graph_shape),
                    trainable,
                    0.0 if penalty is None else penalty.l1,
                    0.0 if penalty is None else penalty.l2,
                    math.prod(owner.learning_rate_scale for owner in owners),
                    self._decays(name, variable),
                ),
                trainable,
            )
            self._parameters[id(variable)] = known
        return known.id

    def node(
        self,
        op: str,
        layer: Layer,
        inputs: Sequence[int],
        parameters: Sequence[int] = (),
        attributes: dict[str, Any] | None = None,
    ) -> int:
        name = "/".join(part.name for part in (*self._scopes, layer))
        return self.graph.node(op, name, list(inputs), list(parameters), attributes or {})

    @contextmanager
    def scope(self, layer: Layer) -> Iterator[None]:
        """The parts of a layer that has layers are named "inner/conv2d"."""
        self._scopes.append(layer)
        yield
        self._scopes.pop()

    @contextmanager
    def mode(self, training: bool) -> Iterator[None]:
        """What is lowered inside a call with training=False is so too."""
        before = self.training
        self.training = before and training
        yield
        self.training = before
