"""A model's architecture as plain data (for JSON), and back. Only the layers of the registry take
part: nothing is imported by name."""

from typing import Any

from convlet.layers import REGISTRY, InputLayer
from convlet.layers.base import Layer, Node, SymbolicTensor
from convlet.models.model import Model
from convlet.models.sequential import Sequential

Config = dict[str, Any]


def describe(model: Model) -> Config:
    """The architecture of a model; ValueError for a layer that is not convlet's."""
    return _describe_layer(model, {})


def _describe_layer(layer: Layer, seen: dict[int, int]) -> Config:
    """``seen`` numbers the layers as they are met; a layer that is met again is a reference."""
    if id(layer) in seen:
        return {"shared": seen[id(layer)]}
    seen[id(layer)] = len(seen)
    entry: Config = {"class": type(layer).__name__, "auto_named": layer.auto_named}
    if layer.learning_rate_scale != 1.0:
        entry["learning_rate_scale"] = layer.learning_rate_scale
    if type(layer) is Sequential:
        first = layer.inputs[0].node.layer
        entry["name"] = layer.name
        entry["input"] = _describe_layer(first, seen)
        entry["layers"] = [_describe_layer(inner, seen) for inner in layer.layers]
    elif type(layer) is Model:
        entry |= _describe_network(layer, seen)
    elif REGISTRY.get(type(layer).__name__) is type(layer):
        entry["config"] = layer.get_config()
    else:
        raise ValueError(
            f"save: {layer.owner}: expected one of convlet's layers {sorted(REGISTRY)}, "
            f"got {type(layer).__name__}"
        )
    return entry


def _describe_network(model: Model, seen: dict[int, int]) -> Config:
    layers = model.layers
    numbers = {id(layer): i for i, layer in enumerate(layers)}
    calls = [tensor.node for tensor in model.inputs] + model.nodes_in_order
    call_numbers = {id(node): i for i, node in enumerate(calls)}

    def place(tensor: SymbolicTensor) -> list[int]:
        return [call_numbers[id(tensor.node)], tensor.index]

    return {
        "name": model.name,
        "trainable": model.trainable,
        "layers": [_describe_layer(layer, seen) for layer in layers],
        "calls": [
            {"layer": numbers[id(node.layer)], "inputs": [place(t) for t in node.inputs]}
            for node in calls
        ],
        "inputs": [place(tensor) for tensor in model.inputs],
        "outputs": [place(tensor) for tensor in model.outputs],
        "input_structure": model.input_structure,
        "output_structure": model.output_structure,
    }


def rebuild(config: Config) -> Model:
    """The model that ``describe`` described, with fresh weights; ValueError for anything else."""
    try:
        model = _rebuild_layer(config, [])
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the architecture is damaged ({type(error).__name__}: {error})") from None
    if not isinstance(model, Model):
        raise ValueError(f"the architecture is damaged: expected a model, got {model.owner}")
    return model


def _rebuild_layer(entry: Config, seen: list[Layer | None]) -> Layer:
    if "shared" in entry:
        layer = seen[entry["shared"]]
        if layer is None:
            raise ValueError("the architecture is damaged: a model contains itself")
        return layer
    number = len(seen)
    seen.append(None)
    kind = entry["class"]
    if kind == "Sequential":
        first = _rebuild_layer(entry["input"], seen)
        inner = [_rebuild_layer(e, seen) for e in entry["layers"]]
        layer = Sequential([first, *inner], name=entry["name"])
    elif kind == "Model":
        layer = _rebuild_network(entry, seen)
    elif kind in REGISTRY:
        layer = REGISTRY[kind].from_config(entry["config"])
    else:
        raise ValueError(f"expected one of convlet's layers {sorted(REGISTRY)}, got {kind!r}")
    layer.auto_named = bool(entry["auto_named"])
    layer.learning_rate_scale = entry.get("learning_rate_scale", 1.0)
    seen[number] = layer
    return layer


def _rebuild_network(entry: Config, seen: list[Layer | None]) -> Model:
    layers = [_rebuild_layer(e, seen) for e in entry["layers"]]
    calls: list[Node] = []

    def tensor(place: list[int]) -> SymbolicTensor:
        return calls[place[0]].outputs[place[1]]

    for call in entry["calls"]:
        layer = layers[call["layer"]]
        if isinstance(layer, InputLayer):
            calls.append(layer.start().node)
        else:
            calls.append(layer.apply([tensor(place) for place in call["inputs"]])[0].node)
    from convlet.models.structure import pack

    model = Model(
        pack([tensor(place) for place in entry["inputs"]], entry["input_structure"]),
        pack([tensor(place) for place in entry["outputs"]], entry["output_structure"]),
        name=entry["name"],
    )
    model._trainable = bool(entry["trainable"])
    return model
