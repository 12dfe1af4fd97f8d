"""Operation: one op of a graph as a layer, which is how convlet.ops describes itself in models."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import initializers
from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer, SymbolicTensor
from convlet.layers.variable import Variable

# The ops of a graph that an Operation may be; a saved model may contain no others.
OPS = (
    *("activation", "add", "avg_pool2d", "binary", "concatenate", "conv2d", "dense", "log_softmax"),
    *("matmul", "max_pool2d", "multiply", "one_hot", "parameter", "reduce", "reshape", "scale"),
    *("slice", "softmax", "transpose", "unary", "upsample2d", "where"),
)

MOST_CONSTANTS = 65536  # numbers in one constant; they are saved as text


class Operation(Layer):
    """One op of a graph. ``convlet.ops`` makes it from symbolic tensors; there is no need to use it
    directly.

    Args:
        op: one of OPS.
        attributes: as the op takes them.
        parameters: weights of other layers (while a layer's ``call`` is traced) and constants, as
            the op takes parameters. In a saved model: constants only, as nested lists.
        label: what the op is called by users ("mean" for a reduce).
    """

    def __init__(
        self,
        op: str,
        attributes: dict[str, Any] | None = None,
        parameters: Sequence[Any] = (),
        label: str | None = None,
        name: str | None = None,
        trainable: bool = True,
    ):
        if op not in OPS:
            raise arguments.expected("Operation", "op", f"one of {list(OPS)}", op)
        self.op = op
        self.label = op if label is None else label
        super().__init__(name=self.label if name is None else name, trainable=trainable)
        self.auto_named = name is None
        self.attributes = dict(attributes or {})
        self.parameters = [
            p if isinstance(p, Variable) else constant(f"constant_{i}", np.asarray(p), self.owner)
            for i, p in enumerate(parameters)
        ]

    @property
    def activation(self) -> str | None:
        """The activation that it is; AttributeError for another op."""
        if self.op in arguments.ROW_ACTIVATIONS:
            return self.op
        if self.op == "activation":
            return self.attributes["activation"]
        raise AttributeError(f"{self.owner} is no activation")

    def apply(self, tensors: list[SymbolicTensor]) -> list[SymbolicTensor]:
        over_batch = any(tensor.node.over_batch for tensor in tensors)
        linear = self.op in ("add", "scale") or self.label in ("subtract", "negative")
        if over_batch and not linear:
            raise ValueError(
                f"{self.label}: expected values of samples, got a mean over the batch (ops.mean "
                "without axis), of which only sums and multiples by numbers are possible"
            )
        outputs = self._describe_call(tensors)
        outputs[0].node.batched = any(tensor.batched for tensor in tensors)
        outputs[0].node.over_batch = over_batch
        return outputs

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        parameters = [
            graph.parameter(self, variable) if variable.constant else graph.weight(variable)
            for variable in self.parameters
        ]
        return [graph.node(self.op, self, inputs, parameters, self.attributes)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "op": self.op,
            "attributes": self.attributes,
            "parameters": [self._constant(variable).tolist() for variable in self.parameters],
            "label": self.label,
        }

    def _constant(self, variable: Variable) -> NDArray[np.float32]:
        if not variable.constant:
            raise ValueError(f"{self.owner}: get_config: it uses the weight {variable.name!r}")
        return variable.numpy()


def constant(name: str, values: NDArray[Any], owner: str) -> Variable:
    """Numbers that are part of a model's description."""
    if values.dtype.kind not in "fiub" or values.size > MOST_CONSTANTS or values.size == 0:
        raise ValueError(
            f"{owner}: expected a constant of 1 to {MOST_CONSTANTS} numbers, got an array of shape "
            f"{values.shape} and dtype {values.dtype}; larger ones belong in "
            "add_weight(trainable=False)"
        )
    variable = Variable(name, values.shape, initializers.Zeros(), trainable=False, constant=True)
    variable.assign(values)
    return variable


def describe(
    op: str,
    inputs: Sequence[SymbolicTensor],
    attributes: dict[str, Any] | None = None,
    parameters: Sequence[Variable | NDArray[Any]] = (),
    label: str | None = None,
) -> SymbolicTensor:
    """What a new Operation makes of the inputs. It has a batch axis if one of the inputs has."""
    return Operation(op, attributes, parameters, label).apply(list(inputs))[0]


def parameter(variable: Variable | NDArray[Any]) -> SymbolicTensor:
    """A weight or constants as a value without a batch axis: the same for all samples."""
    return describe("parameter", [], parameters=[variable])
