"""From a model's layers to the compiled module's graph."""

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
        trainable, rate_scale: of the model that is lowered; those of its layers come on top.
        decays: whether the optimizer's weight decay applies to a weight of a name.
    """

    def __init__(
        self,
        graph: Any,
        trainable: bool = True,
        rate_scale: float = 1.0,
        decays: Callable[[str, Variable], bool] = lambda name, variable: True,
    ):
        self.graph = graph
        self._trainable, self._rate_scale, self._decays = trainable, rate_scale, decays
        self._parameters: dict[int, Parameter] = {}
        self._scopes: list[Layer] = []

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
        """Whether the layer and all models that it is in are trainable."""
        return self._trainable and all(part.trainable for part in (layer, *self._scopes))

    def parameter(self, layer: Layer, variable: Variable) -> int:
        """The parameter of a weight, added when it is met for the first time."""
        known = self._parameters.get(id(variable))
        if known is None:
            name = self._path(layer, variable.name)
            trainable = variable.trainable and self.trains(layer)
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
                    self._scale_of(layer),
                    self._decays(name, variable),
                ),
                trainable,
            )
            self._parameters[id(variable)] = known
        return known.id

    def _scale_of(self, layer: Layer) -> float:
        scale = self._rate_scale * layer.learning_rate_scale
        for scope in self._scopes:
            scale *= scope.learning_rate_scale
        return scale

    def node(
        self,
        op: str,
        layer: Layer,
        inputs: Sequence[int],
        parameters: Sequence[int] = (),
        attributes: dict[str, Any] | None = None,
    ) -> int:
        name = self._path(layer)
        return self.graph.node(op, name, list(inputs), list(parameters), attributes or {})

    @contextmanager
    def scope(self, owner: Layer) -> Iterator[None]:
        """The layers of a model inside a model, or of a layer, are named "inner/conv2d"."""
        self._scopes.append(owner)
        yield
        self._scopes.pop()

    def _path(self, *parts: Layer | str) -> str:
        names = [part if isinstance(part, str) else part.name for part in (*self._scopes, *parts)]
        return "/".join(names)
