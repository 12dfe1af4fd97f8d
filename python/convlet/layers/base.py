"""Layer and the symbolic tensors that flow between layers while a model is described."""

import re
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlet import _core, initializers, regularizers
from convlet.layers import arguments
from convlet.layers.variable import Variable

Shape = tuple[int, ...]


class GraphBuilder(Protocol):
    """What a layer may ask of the graph that it is lowered into; values and parameters are ids."""

    def shape(self, value: int) -> Shape: ...
    def trains(self, layer: "Layer") -> bool: ...
    def parameter(self, layer: "Layer", variable: Variable) -> int: ...
    def node(
        self,
        op: str,
        layer: "Layer",
        inputs: Sequence[int],
        parameters: Sequence[int] = (),
        attributes: dict[str, Any] | None = None,
    ) -> int: ...
    def scope(self, owner: "Layer") -> AbstractContextManager[None]: ...


class SymbolicTensor:
    """The value that one call of a layer makes, known by its shape: (None, ...), None for the
    batch."""

    def __init__(self, shape: Sequence[int], node: "Node", index: int = 0):
        self.sample_shape: Shape = tuple(shape)
        self.node = node
        self.index = index
        self.dtype = "float32"

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (None, *self.sample_shape)

    @property
    def name(self) -> str:
        return self.node.layer.name

    def __repr__(self) -> str:
        return f"<SymbolicTensor {self.shape} of {self.name!r}>"

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        raise TypeError(
            f"{self!r} describes a model and has no values: use layers on it, not numpy"
        )


class Node:
    """One call of a layer: the tensors it took. Nodes hold layers, and not the other way round, so
    that a model is freed as soon as it is dropped."""

    def __init__(self, layer: "Layer", inputs: Sequence[SymbolicTensor], shapes: Sequence[Shape]):
        self.layer = layer
        self.inputs = list(inputs)
        self.shapes = list(shapes)

    @property
    def outputs(self) -> list[SymbolicTensor]:
        """The tensors that the call made."""
        return [SymbolicTensor(shape, self, i) for i, shape in enumerate(self.shapes)]


class Layer:
    """Base of all layers: a name, attributes and, once built, weights. A layer computes nothing; it
    is lowered to nodes of a graph, which a plan runs.

    Attributes:
        learning_rate_scale: the factor of the optimizer's learning rate for this layer's weights,
            1.0 at first; in a model inside a model the factors of both are multiplied. A change
            takes effect at the next compile, and is saved with the model.

    Args:
        name: unique in a model; made from the class name ("conv2d", "conv2d_1") when None.
        trainable: whether training updates the weights. A change takes effect at the next compile.
        input_shape: of one sample; on the first layer of a Sequential it replaces an Input.
        dtype: None or "float32".
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        input_shape: Sequence[int] | None = None,
        dtype: str | None = None,
        activity_regularizer: Any = None,
        **unknown: Any,
    ):
        kind = type(self).__name__
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise arguments.expected(kind, "name", "a non-empty string without '/'", name)
        self.name = snake_case(kind) if name is None else name
        self.auto_named = name is None
        if unknown:
            raise TypeError(f"{self.owner}: unexpected argument {sorted(unknown)[0]!r}")
        self.trainable = arguments.flag(self.owner, "trainable", trainable)
        if dtype not in (None, "float32"):
            raise arguments.expected(self.owner, "dtype", "'float32'", dtype)
        arguments.unsupported(self.owner, activity_regularizer=activity_regularizer)
        self.first_shape = (
            None
            if input_shape is None
            else arguments.sample_shape(self.owner, "input_shape", input_shape)
        )
        self._learning_rate_scale = 1.0
        self.built = False
        self._nodes: list[weakref.ref[Node]] = []
        self._variables: list[Variable] = []

    @property
    def owner(self) -> str:
        """How errors name this layer: "Conv2D 'conv2d_1'"."""
        return f"{type(self).__name__} {self.name!r}"

    @property
    def learning_rate_scale(self) -> float:
        return self._learning_rate_scale

    @learning_rate_scale.setter
    def learning_rate_scale(self, value: float) -> None:
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not number or not 0 <= value < np.inf:
            raise arguments.expected(self.owner, "learning_rate_scale", "a number >= 0", value)
        self._learning_rate_scale = float(value)

    # What a subclass defines.

    def build(self, shapes: list[Shape]) -> None:
        """Makes the weights for inputs of these sample shapes."""

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        """Adds this layer's nodes to ``graph``; returns the values that it makes."""
        raise NotImplementedError(f"{type(self).__name__} must define lower(graph, inputs)")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        return {"name": self.name, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Layer":
        return cls(**config)

    # Weights.

    def add_weight(
        self,
        name: str,
        shape: Sequence[int],
        initializer: Any = "glorot_uniform",
        regularizer: Any = None,
        trainable: bool = True,
        graph_shape: Sequence[int] | None = None,
    ) -> Variable:
        """A new weight of this layer, for ``build``."""
        variable = Variable(
            name,
            shape,
            initializers.get(initializer, f"{self.owner}: {name}_initializer"),
            regularizers.get(regularizer, f"{self.owner}: {name}_regularizer"),
            trainable,
            graph_shape,
        )
        self._variables.append(variable)
        return variable

    @property
    def weights(self) -> list[Variable]:
        return list(self._variables)

    @property
    def trainable_weights(self) -> list[Variable]:
        return [v for v in self.weights if v.trainable] if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Variable]:
        trainable = {id(v) for v in self.trainable_weights}
        return [v for v in self.weights if id(v) not in trainable]

    def get_weights(self) -> list[NDArray[np.float32]]:
        """Copies of the weights, in Keras' order (kernel, bias)."""
        return [variable.numpy() for variable in self.weights]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Replaces all weights; ValueError, and no change, unless count and shapes fit."""
        variables = self.weights
        if len(weights) != len(variables):
            raise ValueError(
                f"{self.owner}: set_weights: expected {len(variables)} arrays, got {len(weights)}"
            )
        arrays = [np.asarray(w, np.float32) for w in weights]
        for variable, array in zip(variables, arrays, strict=True):
            if array.shape != variable.shape:
                raise ValueError(
                    f"{self.owner}: set_weights: {variable.name}: expected shape "
                    f"{variable.shape}, got {array.shape}"
                )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def count_params(self) -> int:
        """How many numbers the weights hold."""
        return sum(variable.size for variable in self.weights)

    # Calls.

    def __call__(self, inputs: Any, training: bool | None = None) -> Any:
        """On symbolic tensors: describes a call and returns the symbolic result. On arrays:
        computes it (in inference mode)."""
        tensors = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        symbolic = [isinstance(t, SymbolicTensor) for t in tensors]
        if not symbolic or (any(symbolic) and not all(symbolic)):
            raise arguments.expected(
                self.owner, "inputs", "symbolic tensors only or arrays only", inputs
            )
        if all(symbolic):
            outputs = self.apply(tensors)
            return outputs[0] if len(outputs) == 1 else outputs
        return self._compute(inputs)

    def apply(self, tensors: list[SymbolicTensor]) -> list[SymbolicTensor]:
        """Describes one call of this layer."""
        shapes = [tensor.sample_shape for tensor in tensors]
        node = Node(self, tensors, self.infer(shapes))
        self._nodes.append(weakref.ref(node))
        return node.outputs

    @property
    def nodes(self) -> list[Node]:
        """The calls of this layer that a model or a symbolic tensor still knows."""
        return [node for reference in self._nodes if (node := reference()) is not None]

    def infer(self, shapes: list[Shape]) -> list[Shape]:
        """The sample shapes that inputs of these sample shapes give; builds the layer if need be.
        ValueError, from the op's own check, when the layer cannot take them."""
        from convlet.models.lowering import Lowering

        was_built = self.built
        try:
            if not was_built:
                self.build(shapes)
                self.built = True
            graph = Lowering(_core.Graph())
            inputs = [graph.input(f"input {i}", shape) for i, shape in enumerate(shapes)]
            return [graph.shape(value) for value in self.lower(graph, inputs)]
        except Exception:
            if not was_built:
                self.built = False
                self._variables.clear()
            raise

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """(None, ...) for an input of shape (None, ...)."""
        return (
            None,
            *self.infer([arguments.sample_shape(self.owner, "input_shape", input_shape[1:])])[0],
        )

    def one_input(self, inputs: list[Any]) -> Any:
        """The only input; ValueError when there are several."""
        if len(inputs) != 1:
            raise arguments.expected(self.owner, "inputs", "one tensor", f"{len(inputs)} tensors")
        return inputs[0]

    def _compute(self, inputs: Any) -> Any:
        """Runs the layer alone on arrays, as a model of one layer."""
        from convlet.layers.core import Input
        from convlet.models import Model

        several = isinstance(inputs, (list, tuple)) and hasattr(inputs[0], "shape")
        arrays = [np.asarray(x) for x in (inputs if several else [inputs])]
        if any(x.ndim < 2 for x in arrays):
            shapes = [x.shape for x in arrays]
            raise arguments.expected(self.owner, "inputs", "arrays with a batch axis first", shapes)
        tensors = [Input(x.shape[1:]) for x in arrays]
        outputs = self.apply(tensors)
        model = Model(tensors, outputs if len(outputs) > 1 else outputs[0])
        return model.predict(arrays, batch_size=128)

    # The tensors of the only call, as in Keras.

    @property
    def input(self) -> Any:
        tensors = self._only_node("input").inputs
        return tensors[0] if len(tensors) == 1 else tensors

    @property
    def output(self) -> Any:
        tensors = self._only_node("output").outputs
        return tensors[0] if len(tensors) == 1 else tensors

    def _only_node(self, what: str) -> Node:
        if len(self.nodes) != 1:
            raise AttributeError(
                f"{self.owner}: {what}: the layer was called {len(self.nodes)} times, expected once"
            )
        return self.nodes[0]

    def __repr__(self) -> str:
        return f"<{self.owner}>"


def snake_case(name: str) -> str:
    """Keras' rule: Conv2D -> conv2d, MaxPooling2D -> max_pooling2d, ReLU -> re_lu."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
