"""SimpleRNN, LSTM, GRU and Bidirectional: sequences (T, I), such as the rows of an image."""

from collections.abc import Sequence
from typing import Any

from convlet import initializers, regularizers
from convlet.initializers import F32, Initializer
from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer, Shape
from convlet.layers.core import weight_config
from convlet.layers.variable import Variable


class _Recurrent(Layer):
    """What the recurrent layers share: weights kernel (I, gates * units), recurrent_kernel
    (units, gates * units) and bias."""

    op: str
    gates: int

    def __init__(
        self,
        units: int,
        activation: str,
        use_bias: bool,
        kernel_initializer: Any,
        recurrent_initializer: Any,
        bias_initializer: Any,
        *,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        owner = self.owner
        arguments.unsupported(
            owner,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
        )
        self.units = arguments.integer(owner, "units", units)
        self._only("activation", activation, "tanh")
        self.dropout = arguments.number(owner, "dropout", dropout)
        if not 0 <= self.dropout < 1:
            raise arguments.expected(owner, "dropout", "a number in [0, 1)", dropout)
        self._only("recurrent_dropout", recurrent_dropout, 0)
        self._only("return_state", return_state, False)
        self._only("stateful", stateful, False)
        self.use_bias = arguments.flag(owner, "use_bias", use_bias)
        self.seed = seed
        self.return_sequences = arguments.flag(owner, "return_sequences", return_sequences)
        self.go_backwards = arguments.flag(owner, "go_backwards", go_backwards)
        self.kernel_initializer = initializers.get(
            kernel_initializer, f"{owner}: kernel_initializer"
        )
        self.recurrent_initializer = initializers.get(
            recurrent_initializer, f"{owner}: recurrent_initializer"
        )
        self.bias_initializer = initializers.get(bias_initializer, f"{owner}: bias_initializer")
        self.kernel_regularizer = regularizers.get(
            kernel_regularizer, f"{owner}: kernel_regularizer"
        )
        self.recurrent_regularizer = regularizers.get(
            recurrent_regularizer, f"{owner}: recurrent_regularizer"
        )
        self.bias_regularizer = regularizers.get(bias_regularizer, f"{owner}: bias_regularizer")

    def _only(self, argument: str, value: Any, only: Any) -> None:
        """ValueError unless the argument has the only value that convlet knows."""
        if value != only:
            raise arguments.expected(
                self.owner, argument, f"{only!r} (convlet has nothing else)", value
            )

    @property
    def bias_shape(self) -> Shape:
        return (self.gates * self.units,)

    def initial_bias(self) -> Initializer:
        return self.bias_initializer

    def build(self, shapes: list[Shape]) -> None:
        shape = self.one_input(shapes)
        if len(shape) != 2:
            raise arguments.expected(
                self.owner,
                "inputs",
                "sequences (N,T,I), such as the rows of images by Reshape((H, W * C))",
                "(N," + ",".join(map(str, shape)) + ")",
            )
        columns = self.gates * self.units
        self.add_weight(
            "kernel", (shape[1], columns), self.kernel_initializer, self.kernel_regularizer
        )
        self.add_weight(
            "recurrent_kernel",
            (self.units, columns),
            self.recurrent_initializer,
            self.recurrent_regularizer,
        )
        if self.use_bias:
            self.add_weight("bias", self.bias_shape, self.initial_bias(), self.bias_regularizer)

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        return [self.lower_walk(graph, self.one_input(inputs))]

    def lower_walk(self, graph: GraphBuilder, x: int, aligned: bool = False) -> int:
        """The node of the layer; ``aligned`` puts the results of a walk backwards in the order of
        x."""
        if self.dropout and graph.training:
            noise: dict[str, Any] = {"rate": self.dropout, "noise": "channel"}
            x = graph.node("dropout", self, [x], (), noise)
        parameters = [graph.parameter(self, variable) for variable in self.weights]
        attributes = {
            "return_sequences": self.return_sequences,
            "go_backwards": self.go_backwards,
            "aligned": aligned,
        }
        return graph.node(self.op, self, [x], parameters, attributes)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "units": self.units,
            "use_bias": self.use_bias,
            "dropout": self.dropout,
            "seed": self.seed,
            "return_sequences": self.return_sequences,
            "go_backwards": self.go_backwards,
            **weight_config(self, "kernel"),
            **weight_config(self, "recurrent"),
            **weight_config(self, "bias"),
        }


class SimpleRNN(_Recurrent):
    """The plain recurrent layer (Elman 1990): (T, I) -> (units,), the last h, or (T, units).

        h = tanh(x[t] @ kernel + h @ recurrent_kernel + bias)

    Args:
        units: the size of h.
        activation: "tanh".
        return_sequences: whether the result is the h of every step.
        go_backwards: whether to walk from the last step to the first; results come in that order.
        dropout: in training, the share of the I inputs that is set to 0, the same ones in all steps
            of a sample; the others are divided by 1 - dropout (Gal & Ghahramani 2016).
        seed, unroll, use_cudnn: accepted as in Keras; they change nothing.

    recurrent_dropout, return_state and stateful are refused.
    """

    op, gates = "simple_rnn", 1

    def __init__(
        self,
        units: int,
        activation: str = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        super().__init__(
            units,
            activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            **kwargs,
        )


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000):
    (T, I) -> (units,), the last h, or (T, units). With the gates i, f, g, o side by side,

        i, f, g, o = split(x[t] @ kernel + h @ recurrent_kernel + bias)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g),   h = sigmoid(o) * tanh(c)

    Args:
        units: the size of h and c.
        activation, recurrent_activation: "tanh" and "sigmoid".
        unit_forget_bias: whether the bias of the forget gate starts at 1 (Jozefowicz et al. 2015).
        return_sequences, go_backwards and the rest: as for SimpleRNN.
    """

    op, gates = "lstm", 4

    def __init__(
        self,
        units: int,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(
            units,
            activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            **kwargs,
        )
        self._only("recurrent_activation", recurrent_activation, "sigmoid")
        self.unit_forget_bias = arguments.flag(self.owner, "unit_forget_bias", unit_forget_bias)

    def initial_bias(self) -> Initializer:
        return (
            _ForgetBias(self.bias_initializer) if self.unit_forget_bias else self.bias_initializer
        )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"unit_forget_bias": self.unit_forget_bias}


class _ForgetBias(Initializer):
    """Ones for the forget gate, the second of four; another initializer's values for the others."""

    def __init__(self, others: Initializer):
        super().__init__()
        self.others = others

    def __call__(self, shape: Sequence[int], seed: int = 0) -> F32:
        values = self.others(shape, seed)
        units = shape[0] // 4
        values[units : 2 * units] = 1
        return values


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al. 2014), the reset gate after the product:
    (T, I) -> (units,), the last h, or (T, units). With the gates z, r, g side by side,

        z, r, g = split(x[t] @ kernel + bias[0])
        mz, mr, mg = split(h @ recurrent_kernel + bias[1])
        z = sigmoid(z + mz),   r = sigmoid(r + mr),   g = tanh(g + r * mg)
        h = z * h + (1 - z) * g

    Args:
        units: the size of h.
        activation, recurrent_activation: "tanh" and "sigmoid".
        reset_after: True.
        return_sequences, go_backwards and the rest: as for SimpleRNN.
    """

    op, gates = "gru", 3

    def __init__(
        self,
        units: int,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        *,
        reset_after: bool = True,
        **kwargs: Any,
    ):
        super().__init__(
            units,
            activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            **kwargs,
        )
        self._only("recurrent_activation", recurrent_activation, "sigmoid")
        self._only("reset_after", reset_after, True)

    @property
    def bias_shape(self) -> Shape:
        return (2, 3 * self.units)


_CELLS: dict[str, type[_Recurrent]] = {cls.__name__: cls for cls in (SimpleRNN, LSTM, GRU)}


class Bidirectional(Layer):
    """A recurrent layer along the sequence and a second one back, joined (Schuster & Paliwal 1997).

    Args:
        layer: a SimpleRNN, LSTM or GRU.
        merge_mode: "concat" (side by side), "sum", "ave", "mul", or None: the two results, forward
            first.
        backward_layer: the layer for the way back, with the other go_backwards; a copy of `layer`
            with weights of its own when None.
    """

    def __init__(
        self,
        layer: _Recurrent,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: _Recurrent | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        arguments.unsupported(self.owner, weights=weights)
        for argument, value in (("layer", layer), ("backward_layer", backward_layer or layer)):
            if not isinstance(value, _Recurrent):
                raise arguments.expected(self.owner, argument, f"one of {sorted(_CELLS)}", value)
        modes = ("concat", "sum", "ave", "mul", None)
        if merge_mode not in modes:
            raise arguments.expected(self.owner, "merge_mode", f"one of {modes}", merge_mode)
        self.merge_mode = merge_mode
        self.forward_layer = _copy(layer, f"forward_{layer.name}")
        self.backward_layer = (
            _copy(layer, f"backward_{layer.name}", go_backwards=not layer.go_backwards)
            if backward_layer is None
            else _copy(backward_layer)
        )
        first, second = self.forward_layer, self.backward_layer
        if (second.units, second.return_sequences) != (first.units, first.return_sequences):
            raise arguments.expected(
                self.owner, "backward_layer", "the units and return_sequences of layer", second
            )
        if second.go_backwards == first.go_backwards:
            raise arguments.expected(
                self.owner, "backward_layer", "a layer that walks the other way", second
            )

    @property
    def weights(self) -> list[Variable]:
        return self.forward_layer.weights + self.backward_layer.weights

    @property
    def trainable_weights(self) -> list[Variable]:
        if not self.trainable:
            return []
        return self.forward_layer.trainable_weights + self.backward_layer.trainable_weights

    def build(self, shapes: list[Shape]) -> None:
        for layer in (self.forward_layer, self.backward_layer):
            layer._variables.clear()
            layer.build(shapes)
            layer.built = True

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        x = self.one_input(inputs)
        with graph.scope(self):
            forward = self.forward_layer.lower_walk(graph, x)
            backward = self.backward_layer.lower_walk(graph, x, aligned=True)
        both = [forward, backward]
        if self.merge_mode is None:
            return both
        if self.merge_mode == "concat":
            return [graph.node("concatenate", self, both, (), {"axis": -1})]
        if self.merge_mode == "mul":
            return [graph.node("multiply", self, both)]
        total = graph.node("add", self, both)
        if self.merge_mode == "sum":
            return [total]
        return [graph.node("scale", self, [total], (), {"factor": 0.5})]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "layer": _describe(self.forward_layer),
            "merge_mode": self.merge_mode,
            "backward_layer": _describe(self.backward_layer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Bidirectional":
        layers = {name: _restore(config[name]) for name in ("layer", "backward_layer")}
        made = cls(**config | layers)
        # The names are prefixed already.
        for name, layer in zip(("forward_layer", "backward_layer"), layers.values(), strict=True):
            setattr(made, name, layer)
        return made


def _copy(layer: _Recurrent, name: str | None = None, **changes: Any) -> _Recurrent:
    """A layer with the same arguments and weights of its own."""
    config = layer.get_config() | changes
    return type(layer).from_config(config if name is None else config | {"name": name})


def _describe(layer: _Recurrent) -> dict[str, Any]:
    return {"class": type(layer).__name__, "config": layer.get_config()}


def _restore(entry: dict[str, Any]) -> _Recurrent:
    if entry["class"] not in _CELLS:
        raise ValueError(f"expected one of {sorted(_CELLS)}, got {entry['class']!r}")
    return _CELLS[entry["class"]].from_config(entry["config"])
