"""Layer and the symbolic tensors that flow between layers while a model is described."""

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlet import _core, initializers, regularizers
from convlet.layers import arguments
from convlet.layers.mode import keeps_training
from convlet.layers.variable import Variable
from convlet.ops.dispatch import Symbolic, no_value
from convlet.utils.names import snake_case

Shape = tuple[int, ...]


class GraphBuilder(Protocol):
    """What a layer may ask of the graph that it is lowered into; values and parameters are ids.

    training: False inside a call with training=False. trains: whether a layer learns there.
    parameter: of a weight of ``layer``. weight: of a weight of the layer whose ``call`` is being
    lowered, or of one of its sub-layers. scope: what is lowered inside belongs to ``layer``.
    """

    def shape(self, value: int) -> Shape: ...
    @property
    def training(self) -> bool: ...
    def trains(self, layer: "Layer") -> bool: ...
    def parameter(self, layer: "Layer", variable: Variable) -> int: ...
    def weight(self, variable: Variable) -> int: ...
    def node(
        self,
        op: str,
        layer: "Layer",
        inputs: Sequence[int],
        parameters: Sequence[int] = (),
        attributes: dict[str, Any] | None = None,
    ) -> int: ...
    def scope(self, layer: "Layer") -> AbstractContextManager[None]: ...
    def mode(self, training: bool) -> AbstractContextManager[None]: ...


class SymbolicTensor(Symbolic):
    """The value that one call of a layer makes, known by its shape: (None, ...), None for the
    batch. Python's operators and ``convlet.ops`` make new ones of it."""

    def __init__(self, shape: Sequence[int], node: "Node", index: int = 0):
        self.sample_shape: Shape = tuple(shape)
        self.node = node
        self.index = index
        self.dtype = "float32"

    @property
    def batched(self) -> bool:
        """Whether it differs from sample to sample; False for what is made of weights alone."""
        return self.node.batched

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (None, *self.sample_shape) if self.batched else self.sample_shape

    @property
    def name(self) -> str:
        return self.node.layer.name

    def __repr__(self) -> str:
        return f"<SymbolicTensor {self.shape} of {self.name!r}>"

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        raise no_value(self, "numpy")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise no_value(self, f"numpy.{function.__name__}")

    def __bool__(self) -> bool:
        raise no_value(self, "a branch (if, while, and, or, not)", "; ops.where chooses by value")

    def __float__(self) -> float:
        raise no_value(self, "float()")

    def __int__(self) -> int:
        raise no_value(self, "int()")

    def __len__(self) -> int:
        raise no_value(self, "len()", "; its sizes are in .shape")

    def __iter__(self) -> Iterator[Any]:
        raise no_value(self, "iteration", "; x[:, i] takes a part")


class Node:
    """One call of a layer: the tensors it took. Nodes hold layers, and not the other way round, so
    that a model is freed as soon as it is dropped."""

    def __init__(self, layer: "Layer", inputs: Sequence[SymbolicTensor], shapes: Sequence[Shape]):
        self.layer = layer
        self.inputs = list(inputs)
        self.shapes = list(shapes)
        self.batched = not inputs or any(tensor.batched for tensor in inputs)
        self.over_batch = False  # whether its mean over the batch is meant (losses only)
        self.training = True  # False: as in inference, also while the model is trained

    @property
    def outputs(self) -> list[SymbolicTensor]:
        """The tensors that the call made."""
        return [SymbolicTensor(shape, self, i) for i, shape in enumerate(self.shapes)]


class Layer:
    """Base of all layers: a name, attributes and, once built, weights. A layer computes nothing; it
    is lowered to nodes of a graph, which a plan runs.

    A layer of your own defines ``call(self, x)``, made of other layers and of ``convlet.ops``, and
    where it has weights of its own ``build(self, input_shape)`` with ``self.add_weight``, as in
    Keras. ``call`` runs once for each shape of input, on symbolic tensors; what it describes is
    what the plan computes, without Python. Layers that are attributes of self belong to the layer.
    To be saved it defines ``get_config``. docs/extending.md has an example.

    convlet's own layers define ``lower`` instead, and ``build`` takes a list of sample shapes.

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
        self._trainable = arguments.flag(self.owner, "trainable", trainable)
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
        self._traces: dict[tuple[Shape, ...], Any] = {}  # what call() described, by input shapes

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "build" in cls.__dict__ and not hasattr(cls, "build_for"):
            cls.build = _build_in_either_form(cls.__dict__["build"])  # type: ignore[method-assign]

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

    def build(self, input_shape: Any) -> None:
        """Makes the weights for inputs of this shape, (None, ...), or a list of shapes where there
        are several inputs."""

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        """Adds this layer's nodes to ``graph``; returns the values that it makes."""
        from convlet.layers.tracing import traced_call

        if not defines_call(type(self)):
            raise NotImplementedError(f"{type(self).__name__} must define call(self, inputs)")
        network = traced_call(self, [graph.shape(value) for value in inputs])
        with graph.scope(self):
            return network.lower(graph, inputs)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        return {"name": self.name, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The layer that ``get_config`` described."""
        return cls(**config)

    # Weights.

    def add_weight(
        self,
        name: str | Sequence[int] | None = None,
        shape: Any = None,
        initializer: Any = "glorot_uniform",
        regularizer: Any = None,
        trainable: bool = True,
        graph_shape: Sequence[int] | None = None,
        *,
        dtype: str | None = None,
        constraint: Any = None,
    ) -> Variable:
        """A new weight of this layer, for ``build`` or ``__init__``.

        Args:
            name: unique in the layer; "weight", "weight_1", ... when None. Keras 3's order,
                add_weight(shape, initializer), is understood too.
            shape: of the weight; () when None.
            initializer, regularizer: names or objects.
            trainable: whether training updates it.
            graph_shape: for convlet's own layers: the shape that the graph's op wants.
        """
        if name is not None and not isinstance(name, str):
            initializer = initializer if shape is None else shape
            name, shape = None, name
        taken = [variable.name for variable in self._variables]
        if name is None:
            number = len(taken)
            name = f"weight_{number}" if number else "weight"
        # A layer with layers inside names theirs "layer/weight".
        if ("/" in name and defines_call(type(self))) or name in taken:
            raise arguments.expected(
                self.owner, "add_weight: name", f"a name without '/' other than {taken}", name
            )
        if dtype not in (None, "float32"):
            raise arguments.expected(self.owner, "add_weight: dtype", "'float32'", dtype)
        arguments.unsupported(f"{self.owner}: add_weight", constraint=constraint)
        variable = Variable(
            name,
            arguments.weight_shape(self.owner, shape),
            initializers.get(initializer, f"{self.owner}: {name}_initializer"),
            regularizers.get(regularizer, f"{self.owner}: {name}_regularizer"),
            trainable,
            graph_shape,
        )
        self._variables.append(variable)
        return variable

    @property
    def sublayers(self) -> list["Layer"]:
        """The layers that belong to this one: those that are its attributes, alone or in lists,
        tuples and dicts, in the order in which they were set."""
        found: dict[int, Layer] = {}
        if defines_call(type(self)):
            for value in vars(self).values():
                for layer in _layers_in(value):
                    found.setdefault(id(layer), layer)
        found.pop(id(self), None)
        return list(found.values())

    @property
    def trainable(self) -> bool:
        """Whether training updates the weights; setting it sets that of the sub-layers too. It
        takes effect at the next compile."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = arguments.flag(self.owner, "trainable", value)
        for layer in self.sublayers:
            layer.trainable = value

    @property
    def weights(self) -> list[Variable]:
        """Its own weights, then those of its sub-layers, each once."""
        own = [*self._variables, *(v for layer in self.sublayers for v in layer.weights)]
        return list({id(variable): variable for variable in own}.values())

    @property
    def trainable_weights(self) -> list[Variable]:
        if not self.trainable:
            return []
        own = [v for v in self._variables if v.trainable]
        own += [v for layer in self.sublayers for v in layer.trainable_weights]
        return list({id(variable): variable for variable in own}.values())

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

    def __call__(self, inputs: Any, *others: Any, training: Any = None, **named: Any) -> Any:
        """On symbolic tensors: describes a call and returns the symbolic result. On arrays:
        computes it (in inference mode).

        Args:
            training: False: this call is as in inference, also while the model is trained (no
                dropout, the moving averages of batch normalization). None: as the model is run.

        Raises:
            ValueError: for training=True: what is random is so only in fit and train_on_batch.
        """
        if "_traces" not in vars(self):
            raise RuntimeError(
                f"{type(self).__name__}: expected __init__ to call super().__init__(), which it "
                "did not"
            )
        if others or named:
            inputs = self._call_inputs(inputs, *others, **named)
        tensors = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        symbolic = [isinstance(t, SymbolicTensor) for t in tensors]
        if not symbolic or (any(symbolic) and not all(symbolic)):
            raise arguments.expected(
                self.owner, "inputs", "symbolic tensors only or arrays only", inputs
            )
        kept = keeps_training(self.owner, training)
        if all(symbolic):
            outputs = self.apply(tensors)
            outputs[0].node.training = kept
            return outputs[0] if len(outputs) == 1 else outputs
        return self._compute(inputs)

    def _call_inputs(self, *inputs: Any, **named: Any) -> list[Any]:
        """The inputs of a call with several arguments, in the order of ``call``."""
        if named.get("mask", 0) is None:
            del named["mask"]
        if not named:
            return list(inputs)
        if not defines_call(type(self)):
            raise TypeError(f"{self.owner}: unexpected argument {sorted(named)[0]!r}")
        try:
            bound = inspect.signature(self.call).bind(*inputs, **named)  # type: ignore[attr-defined]
        except TypeError as error:
            raise TypeError(f"{self.owner}: call: {error}") from None
        return list(bound.arguments.values())

    def apply(self, tensors: list[SymbolicTensor]) -> list[SymbolicTensor]:
        """Describes one call of this layer."""
        if not all(tensor.batched for tensor in tensors):
            raise arguments.expected(
                self.owner, "inputs", "values of samples (a weight alone is none)", tensors
            )
        return self._describe_call(tensors)

    def _describe_call(self, tensors: list[SymbolicTensor]) -> list[SymbolicTensor]:
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

        was_built, early = self.built, len(self._variables)
        try:
            if not was_built:
                self.build(shapes)
                self.built = True
            graph = Lowering(_core.Graph())
            inputs = [graph.input(f"input {i}", shape) for i, shape in enumerate(shapes)]
            return [graph.shape(value) for value in self.lower(graph, inputs)]
        except Exception:
            if not was_built:
                self.forget_build(early)
            raise

    def forget_build(self, early: int) -> None:
        """Undoes ``build``, whose shapes have turned out to be wrong: only the first ``early``
        weights stay, those of ``__init__``."""
        self.built = False
        del self._variables[early:]
        self._traces.clear()

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
        model = Model(tensors, outputs[0] if len(outputs) == 1 else outputs)
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


def defines_call(kind: type) -> bool:
    """Whether a class of layers is written with ``call``, as users write them, and not with
    ``lower``."""
    return callable(getattr(kind, "call", None))


def _build_in_either_form(build: Callable[..., None]) -> Callable[..., None]:
    """Lets ``build`` be called with Keras' shapes, (None, ...) or a list of them, and with a list
    of sample shapes; gives a class that defines ``call`` the first, another the second."""

    @functools.wraps(build)
    def either(self: Layer, input_shape: Any = None) -> None:
        shapes = _sample_shapes(self.owner, input_shape)
        if defines_call(type(self)):
            full: list[tuple[int | None, ...]] = [(None, *shape) for shape in shapes]
            build(self, full[0] if len(full) == 1 else full)
        else:
            build(self, shapes)
        self.built = True

    return either


def _sample_shapes(owner: str, value: Any) -> list[Shape]:
    """From (None, ...), a list of such shapes, or a list of sample shapes."""
    if not isinstance(value, (list, tuple)) or not value:
        raise arguments.expected(owner, "build: input_shape", "a shape (None, ...)", value)
    if isinstance(value[0], (list, tuple)):
        return [tuple(shape[1:] if shape[:1] in ((None,), [None]) else shape) for shape in value]
    return [tuple(value[1:])]


def _layers_in(value: Any) -> Iterator[Layer]:
    """The layers in an attribute's value."""
    if isinstance(value, Layer):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _layers_in(item)
