"""Model: layers connected to a DAG, with what a user asks of it."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlet.layers import arguments
from convlet.layers.base import (
    GraphBuilder,
    Layer,
    Node,
    Shape,
    SymbolicTensor,
    defines_call,
)
from convlet.layers.core import Input, InputLayer
from convlet.layers.mode import keeps_training
from convlet.layers.tracing import trace_call
from convlet.models.naming import listed_names, listed_thresholds
from convlet.models.network import Network, name_layers, trace
from convlet.models.structure import Structure, flatten, pack, unique_name
from convlet.models.trainer import Trainer
from convlet.utils.names import snake_case


class Model(Trainer, Layer):
    """A model from symbolic inputs and outputs; any DAG of layers between them.

    Args:
        inputs: what ``Input`` gave; a list or a dict (by the names of the inputs) for several.
        outputs: what layers gave; a list or a dict (by names of your choice) for several.

    A model is a layer too: called on symbolic tensors it puts its layers, and their weights, into
    another model. Called on arrays it computes.

    A subclass may instead make its layers in ``__init__`` and define ``call(self, x)``, as in
    Keras: it runs once, on symbolic tensors, when the model first meets data or ``build(shape)`` is
    called.

    Attributes:
        class_names: the names of the classes, in the order of the output's units, or None; for
            several outputs {output name: names}.
        thresholds: of an output with several labels per image, the probability from which on a
            label counts: a number, one per label, or {output name: either}; None is 0.5.
        preprocessing: a ``convlet.data.Preprocessing`` from images to inputs, or None. All three
            are saved.
        stop_training: a callback sets it to end fit after the epoch.
        history: of the last fit.
    """

    def __init__(
        self, inputs: Any = None, outputs: Any = None, name: str | None = None, **kwargs: Any
    ):
        if inputs is None and outputs is None and defines_call(type(self)):
            self._initialize(name or snake_case(type(self).__name__), name is None, kwargs)
            return
        if inputs is None or outputs is None:
            raise TypeError(
                f"{type(self).__name__}: expected inputs and outputs, or a subclass that defines "
                "call(self, inputs)"
            )
        self._initialize(name or "functional", name is None, kwargs)
        input_leaves, self.input_structure = flatten(inputs)
        output_leaves, self.output_structure = flatten(outputs)
        self._connect(input_leaves, output_leaves)

    def _initialize(self, name: str, auto_named: bool, kwargs: dict[str, Any]) -> None:
        Layer.__init__(self, name=name, **kwargs)
        self.auto_named = auto_named
        Trainer.__init__(self)
        self._class_names: Any = None
        self._thresholds: Any = None
        self.preprocessing: Any = None
        self.input_structure: Structure = None
        self.output_structure: Structure = None
        self.inputs: list[SymbolicTensor] = []
        self.outputs: list[SymbolicTensor] = []
        self.output_names: list[str] = []
        self._network = Network()

    def _connect(self, inputs: list[Any], outputs: list[Any]) -> None:
        for argument, tensors in (("inputs", inputs), ("outputs", outputs)):
            for tensor in tensors:
                if not isinstance(tensor, SymbolicTensor):
                    raise arguments.expected(self.owner, argument, "symbolic tensors", tensor)
            if not tensors:
                raise arguments.expected(self.owner, argument, "at least one tensor", tensors)
        for tensor in inputs:
            if not isinstance(tensor.node.layer, InputLayer):
                raise arguments.expected(self.owner, "inputs", "what convlet.Input gave", tensor)
        self._network = trace(inputs, outputs, self.owner)
        name_layers(self._network.layers, self.owner)
        self.inputs, self.outputs = inputs, outputs
        if isinstance(self.output_structure, list):
            self.output_names = list(self.output_structure)
        else:
            self.output_names = []
            for tensor in outputs:
                self.output_names.append(unique_name(tensor.name, self.output_names))
        self.built = True
        self.forget_engine()
        if self.compiled:
            self._resolve()

    def build_for(self, x: Any, owner: str) -> None:
        """Builds the model for data x where the shape of its input is not known yet (Sequential,
        and a subclass with ``call``)."""
        if self.built:
            return
        leaves, structure = flatten(x)
        if structure == "list" and not all(np.ndim(leaf) >= 1 for leaf in leaves):
            leaves, structure = [x], None
        shapes = [np.shape(leaf) for leaf in leaves]
        if any(len(shape) < 2 for shape in shapes):
            raise ValueError(f"{owner}: x: expected arrays (N, ...), got shapes {shapes}")
        self._describe_inputs([shape[1:] for shape in shapes], structure)

    def build(self, input_shape: Any = None) -> None:
        """For a subclass with ``call``: traces it for inputs of this shape, (None, ...), or a list
        or dict of shapes for several inputs."""
        if self.built:
            raise RuntimeError(f"{self.owner}: build: the model is built")
        several = isinstance(input_shape, dict) or (
            isinstance(input_shape, list) and isinstance(input_shape[0], (list, tuple))
        )
        shapes, structure = flatten(input_shape) if several else ([input_shape], None)
        self._describe_inputs([shape[1:] for shape in shapes], structure)

    def _describe_inputs(self, shapes: Sequence[Sequence[int]], structure: Structure) -> None:
        """Traces ``call`` for inputs of these sample shapes."""
        names: Sequence[str | None] = (
            structure if isinstance(structure, list) else [None] * len(shapes)
        )
        inputs = [
            Input(arguments.sample_shape(self.owner, "input shape", shape), name=name)
            for shape, name in zip(shapes, names, strict=True)
        ]
        network = trace_call(self, inputs, pack(inputs, structure))
        self.input_structure, self.output_structure = structure, network.structure
        self._connect(network.inputs, network.outputs)

    # Structure.

    @property
    def layers(self) -> list[Layer]:
        """The layers, inputs first, each once; of a subclass with ``call``: its attributes that are
        layers."""
        if defines_call(type(self)):
            return super().sublayers
        return list(self._network.layers)

    @property
    def network_layers(self) -> list[Layer]:
        """The layers between inputs and outputs, inputs first; of a subclass with ``call`` the ops
        between its layers too."""
        return list(self._network.layers)

    @property
    def nodes_in_order(self) -> list[Node]:
        """The calls of the layers, each after those that it needs."""
        return list(self._network.nodes)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of a name or at an index; ValueError when there is none."""
        if (name is None) == (index is None):
            raise ValueError(f"{self.owner}: get_layer: expected a name or an index")
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(
                    f"{self.owner}: get_layer: index: expected less than {len(layers)}, got {index}"
                )
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        raise ValueError(
            f"{self.owner}: get_layer: name: expected one of {[layer.name for layer in layers]}, "
            f"got {name!r}"
        )

    @property
    def input(self) -> Any:
        """The symbolic input, or a list of them."""
        return self.inputs[0] if len(self.inputs) == 1 else list(self.inputs)

    @property
    def output(self) -> Any:
        """The symbolic output, or a list of them."""
        return self.outputs[0] if len(self.outputs) == 1 else list(self.outputs)

    @property
    def input_shape(self) -> Any:
        shapes = [tensor.shape for tensor in self.inputs]
        return shapes[0] if len(shapes) == 1 else shapes

    @property
    def output_shape(self) -> Any:
        shapes = [tensor.shape for tensor in self.outputs]
        return shapes[0] if len(shapes) == 1 else shapes

    @property
    def sublayers(self) -> list[Layer]:
        return self.layers

    # Lowering.

    def lower_network(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        """Adds the nodes of all layers; returns the values of the outputs."""
        return self._network.lower(graph, inputs)

    def lower(self, graph: Any, inputs: list[int]) -> list[int]:
        """As a layer of another model."""
        if len(inputs) != len(self.inputs):
            raise arguments.expected(
                self.owner, "inputs", f"{len(self.inputs)} tensors", f"{len(inputs)}"
            )
        for tensor, value in zip(self.inputs, inputs, strict=True):
            if graph.shape(value) != tensor.sample_shape:
                raise arguments.expected(
                    self.owner, "inputs", f"shape {tensor.shape}", (None, *graph.shape(value))
                )
        with graph.scope(self):
            return self.lower_network(graph, inputs)

    def infer(self, shapes: list[Shape]) -> list[Shape]:
        if not self.built:
            self._describe_inputs(shapes, None if len(shapes) == 1 else "list")
        return super().infer(shapes)

    def __call__(self, inputs: Any, training: bool | None = None) -> Any:
        """On symbolic tensors: this model as a layer, with training=False as in inference also
        while the model around it is trained. On arrays: the outputs, in inference mode."""
        kept = keeps_training(self.owner, training)
        leaves = flatten(inputs)[0]
        if leaves and all(isinstance(leaf, SymbolicTensor) for leaf in leaves):
            if isinstance(inputs, dict) and self.built:
                leaves = [inputs[tensor.name] for tensor in self.inputs]
            outputs = self.apply(leaves)
            outputs[0].node.training = kept
            return pack(outputs, self.output_structure)
        return self.predict(inputs, batch_size=128)

    # Weights.

    def get_weights(self) -> list[NDArray[np.float32]]:
        """Copies of all weights, in Keras' order: layer by layer, kernel before bias."""
        with self._locked():
            return super().get_weights()

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Replaces all weights; ValueError, and no change, unless count and shapes fit."""
        with self._locked():
            super().set_weights(weights)

    def _locked(self) -> Any:
        return nullcontext() if self._engine_ is None else self._engine_.lock

    # What travels with the model.

    @property
    def class_names(self) -> Any:
        return self._class_names

    @class_names.setter
    def class_names(self, names: Any) -> None:
        self._class_names = None if names is None else listed_names(self, names)

    @property
    def thresholds(self) -> Any:
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Any) -> None:
        self._thresholds = None if values is None else listed_thresholds(self, values)

    def classify(self, images: Any, batch_size: int = 32) -> list[Any]:
        """Names what is on each image.

        Args:
            images: paths, Pillow images or uint8 arrays (H,W[,C]) when the model has a
                preprocessing; without one, an array (N, ...) as predict takes it. One path or array
                of one image gives a list of one.

        Returns:
            A list of Prediction(name, confidence, top5); of Labels(names, probabilities) for an
            output with several labels per image; of {output name: either} for several outputs.

        Raises:
            ValueError: when the model has no class names or does not end in probabilities.
        """
        from convlet.models.classify import classify

        return classify(self, images, batch_size)

    def save(self, path: Any) -> None:
        """Writes the model to one .safetensors file: architecture, weights, optimizer with its
        state, class names and preprocessing. The file appears whole or not at all.

        Raises:
            ValueError: for another ending, or a layer of your own whose get_config does not
                describe it.
        """
        from convlet.models.saving import save_model

        save_model(self, path)

    def save_weights(self, path: Any) -> None:
        """Writes the weights alone to a .safetensors file."""
        from convlet.models.saving import save_weights

        save_weights(self, path)

    def load_weights(self, path: Any) -> None:
        """Reads the weights from a file of save or save_weights; ValueError, and no change, unless
        names and shapes are those of this model."""
        from convlet.models.saving import load_weights

        load_weights(self, path)

    def summary(
        self,
        line_length: int | None = None,
        *,
        batch_size: int = 32,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
    ) -> None:
        """Prints the layers with their output shapes, parameters and millions of multiplications
        and additions for one sample, and the memory that training and inference take at
        ``batch_size``.

        Args:
            line_length: wraps wider tables; the terminal's width when None.
            print_fn: what takes the text; ``print`` when None.
            expand_nested: whether to show the layers inside models and layers, indented.
            show_trainable: whether to say of each layer if it is frozen; done anyway where one is.
        """
        from convlet.models.summary import summary

        text = summary(self, line_length, batch_size, show_trainable, expand_nested)
        (print_fn or print)(text)

    def plot(self, path: Any, **options: Any) -> None:
        """Draws the model to a file, .svg or .png, with shapes and names; ``options`` as
        ``convlet.utils.plot_model`` takes them."""
        from convlet.utils.drawing import plot_model

        plot_model(self, path, **({"show_shapes": True, "show_layer_names": True} | options))

    def get_config(self) -> dict[str, Any]:
        """The architecture, as ``save`` writes it; of a subclass with ``call``, what its
        constructor takes."""
        if defines_call(type(self)):
            return super().get_config()
        from convlet.models.architecture import describe

        return describe(self)
