"""Sequential: a model that is a chain of layers."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from convlet.layers import arguments
from convlet.layers.base import Layer, Shape, SymbolicTensor
from convlet.layers.convolution import Conv2D, DepthwiseConv2D
from convlet.layers.core import Input, InputLayer
from convlet.layers.pooling import AveragePooling2D, MaxPooling2D
from convlet.models.model import Model
from convlet.models.network import Network, name_layers


class Sequential(Model):
    """A chain of layers.

    Args:
        layers: the layers in order. The first may be an ``Input``, or have ``input_shape``;
            otherwise the model is built when it first sees data.
    """

    def __init__(
        self,
        layers: Iterable[Layer | SymbolicTensor] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        self._initialize(name or "sequential", name is None, kwargs)
        self._chain: list[Layer] = []
        # The symbolic value before the first layer and after each that has been called; empty while
        # the shape of the input is not known.
        self._values: list[SymbolicTensor] = []
        if layers is not None and not isinstance(layers, (list, tuple)):
            raise arguments.expected(self.owner, "layers", "a list of layers", layers)
        for layer in layers or []:
            self._append(layer)
        self._call_new_layers()

    def add(self, layer: Layer | SymbolicTensor) -> None:
        """Puts a layer at the end."""
        before = len(self._chain)
        self._append(layer)
        try:
            self._call_new_layers()
        except Exception:
            del self._chain[before:]
            raise

    def pop(self) -> Layer:
        """Takes the last layer away; ValueError when there is none."""
        if not self._chain:
            raise ValueError(f"{self.owner}: pop: expected at least one layer, got none")
        layer = self._chain.pop()
        del self._values[len(self._chain) + 1 :]
        if self._chain:
            self._call_new_layers()
        else:
            self.built, self.inputs, self.outputs = False, [], []
            self._network = Network()
            self.forget_engine()
        return layer

    def _append(self, layer: Any) -> None:
        if isinstance(layer, SymbolicTensor) and isinstance(layer.node.layer, InputLayer):
            layer = layer.node.layer
        if not isinstance(layer, Layer):
            raise arguments.expected(self.owner, "layers", "layers", layer)
        if isinstance(layer, InputLayer):
            if self._chain or self._values:
                raise arguments.expected(self.owner, "layers", "the Input first", layer)
            self._values.append(layer.start())
            return
        if any(layer is other for other in self._chain):
            raise arguments.expected(self.owner, "layers", "each layer once", layer)
        self._chain.append(layer)
        name_layers(self._chain, self.owner)

    def _call_new_layers(self) -> None:
        """Calls the layers that have not been called yet in turn, if the shape of the input is
        known."""
        if not self._values and self._chain:
            shape = self._first_shape()
            if shape is not None:
                self._values.append(Input(shape))
        if not self._values or not self._chain:
            return
        for layer in self._chain[len(self._values) - 1 :]:
            outputs = layer.apply([self._values[-1]])
            if len(outputs) != 1:
                raise arguments.expected(
                    self.owner, "layers", "layers with one output", f"{layer.owner}: {len(outputs)}"
                )
            self._values.append(outputs[0])
        self._connect([self._values[0]], [self._values[-1]])

    def _first_shape(self) -> Shape | None:
        first = self._chain[0]
        if isinstance(first, Model):
            return first.inputs[0].sample_shape if len(first.inputs) == 1 else None
        return first.first_shape

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights for inputs (None, ...), Keras' form."""
        shape = arguments.sample_shape(self.owner, "input_shape", tuple(input_shape)[1:])
        if self._values and self._values[0].sample_shape != shape:
            raise arguments.expected(
                self.owner, "input_shape", str(self._values[0].shape), input_shape
            )
        if not self._chain:
            raise ValueError(f"{self.owner}: build: expected at least one layer, got none")
        if not self.built:
            self._values = [Input(shape)]
            try:
                self._call_new_layers()
            except Exception:
                self._values = []
                raise

    def build_for(self, x: Any, owner: str) -> None:
        if self.built:
            return
        if not self._chain:
            raise ValueError(f"{owner}: {self.owner} has no layers")
        shape = np.shape(x[0] if isinstance(x, (list, tuple)) and len(x) == 1 else x)
        images = isinstance(
            self._chain[0], (Conv2D, DepthwiseConv2D, MaxPooling2D, AveragePooling2D)
        )
        if images and len(shape) == 3:
            shape = (*shape, 1)
        if len(shape) < 2:
            raise ValueError(f"{owner}: x: expected an array (N, ...), got shape {shape}")
        self.build(shape)

    def infer(self, shapes: list[Shape]) -> list[Shape]:
        if not self.built:
            self.build((None, *self.one_input(shapes)))
        return super().infer(shapes)

    @property
    def layers(self) -> list[Layer]:
        """The layers in order, without the input."""
        return list(self._chain)
