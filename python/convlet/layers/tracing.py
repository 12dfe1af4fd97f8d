"""Running a user's ``call`` once, on symbolic tensors, to learn what it describes."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from convlet.layers import arguments
from convlet.layers.base import Layer, Shape, SymbolicTensor
from convlet.layers.core import InputLayer
from convlet.layers.mode import TRAINING
from convlet.ops.dispatch import tracing


def traced_call(layer: Layer, shapes: Sequence[Shape]) -> Any:
    """The ``Network`` that ``layer.call`` describes for inputs of these sample shapes; it is called
    once for them."""
    key = tuple(shapes)
    if key not in layer._traces:
        inputs = [_placeholder(shape) for shape in shapes]
        layer._traces[key] = trace_call(layer, inputs, inputs[0] if len(inputs) == 1 else inputs)
    return layer._traces[key]


def _placeholder(shape: Shape) -> SymbolicTensor:
    """An input of any shape, () included: labels have it."""
    entry = InputLayer((1,))
    entry.sample_shape = tuple(shape)
    return entry.start()


def trace_call(layer: Any, inputs: list[SymbolicTensor], packed: Any) -> Any:
    """The ``Network`` that ``layer.call`` describes between ``inputs`` and its result; ``packed``
    are the inputs as one argument of it."""
    from convlet.models.network import trace
    from convlet.models.structure import flatten

    owner = f"{layer.owner}: call"
    unbuilt = [(i, len(i._variables)) for _, i in nested_layers(layer) if not i.built]
    try:
        result = run_traced(layer, *call_arguments(layer, inputs, packed))
        outputs, structure = flatten(result)
        check_outputs(layer, outputs, result)
        network = trace(inputs, outputs, owner, all_inputs=False)
        network.structure = structure
        name_parts(layer, network.layers)
    except Exception:
        for inner, early in unbuilt:  # so that inputs that fit will find them as new
            inner.forget_build(early)
        raise
    return network


def run_traced(layer: Any, inputs: Sequence[Any], flags: dict[str, Any]) -> Any:
    """layer.call(*inputs, **flags); its errors say whose call() it is."""
    owner = f"{layer.owner}: call"
    with tracing(layer):
        try:
            return layer.call(*inputs, **flags)
        except Exception as error:
            if type(error) not in (ValueError, TypeError, IndexError):
                raise
            named = type(error)(f"{owner}: {error}")
            raise named.with_traceback(error.__traceback__) from None


def call_arguments(
    layer: Any, tensors: Sequence[SymbolicTensor], packed: Any
) -> tuple[list[Any], dict[str, Any]]:
    """The positional and the named arguments of ``layer.call`` for these tensors: a single
    parameter takes them all, ``packed``; of several parameters each takes one."""
    parameters = inspect.signature(layer.call).parameters
    flags = {name: TRAINING for name in ("training",) if name in parameters}
    positional = [
        p
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and name not in _FLAGS
    ]
    takes_any = any(p.kind == p.VAR_POSITIONAL for p in parameters.values())
    required = sum(p.default is p.empty for p in positional)
    if required <= 1 and len(positional) <= 1 and not takes_any:
        if not positional:
            raise TypeError(f"{layer.owner}: call: expected a parameter for the inputs")
        return [packed], flags
    if len(tensors) < required or (len(tensors) > len(positional) and not takes_any):
        raise arguments.expected(
            layer.owner, "inputs", f"{required} tensors, as call() takes", f"{len(tensors)}"
        )
    return list(tensors), flags


_FLAGS = ("training", "mask")


def check_outputs(layer: Layer, outputs: Sequence[Any], result: Any) -> None:
    """ValueError unless a traced function gave symbolic tensors that depend on its inputs."""
    owner = f"{layer.owner}: call"
    for output in outputs or [None]:
        if not isinstance(output, SymbolicTensor):
            raise arguments.expected(
                owner, "result", "symbolic tensors, made by layers and ops", result
            )
        if not (output.batched or output.node.over_batch):
            raise arguments.expected(owner, "result", "values that depend on the inputs", result)


def networks_of(layer: Any) -> list[Any]:
    """The ``Network`` inside a model or a layer written with ``call``; of the latter one for each
    shape of input that it was called with."""
    return [layer._network] if hasattr(layer, "_network") else list(layer._traces.values())


def nested_layers(layer: Layer) -> Iterator[tuple[str, Layer]]:
    """The sub-layers of a layer and theirs, with their paths below it."""
    for sublayer in layer.sublayers:
        yield sublayer.name, sublayer
        for path, inner in nested_layers(sublayer):
            yield f"{sublayer.name}/{path}", inner


def name_parts(layer: Layer, used: Sequence[Layer]) -> None:
    """Gives sub-layers, and the ops between them, names that are unique in the layer. ValueError
    for a layer with weights that ``call`` has made for itself: they would be lost."""
    from convlet.models.network import name_layers

    known = {id(inner) for _, inner in nested_layers(layer)}
    for part in used:
        if part.weights and id(part) not in known:
            raise ValueError(
                f"{layer.owner}: call: {part.owner} has weights, but is no attribute of the layer: "
                "make it in __init__ and assign it to self"
            )
    own = layer.sublayers
    name_layers(
        [*own, *(part for part in used if all(part is not other for other in own))], layer.owner
    )
