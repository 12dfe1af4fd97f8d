"""A model's architecture as plain data (for JSON), and back. Only the layers of the registry take
part, and the classes that the caller of load_model hands over: nothing is imported by name."""

import inspect
import json
from typing import Any

from convlet.layers import REGISTRY, InputLayer
from convlet.layers.base import Layer, Node, SymbolicTensor, defines_call
from convlet.layers.tracing import nested_layers
from convlet.models.model import Model
from convlet.models.sequential import Sequential
from convlet.models.structure import pack

Config = dict[str, Any]
CustomObjects = dict[str, Any]


def describe(model: Model) -> Config:
    """The architecture of a model; ValueError for a layer of the user's that does not describe
    itself."""
    return _describe_layer(model, {})


def _describe_layer(layer: Layer, seen: dict[int, int]) -> Config:
    """``seen`` numbers the layers as they are met; a layer that is met again is a reference."""
    if id(layer) in seen:
        return {"shared": seen[id(layer)]}
    seen[id(layer)] = len(seen)
    entry: Config = {"class": type(layer).__name__, "auto_named": layer.auto_named}
    if layer.learning_rate_scale != 1.0:
        entry["learning_rate_scale"] = layer.learning_rate_scale
    if isinstance(layer, Model) and defines_call(type(layer)):
        entry |= {
            "custom": True,
            "config": _own_config(layer),
            "parts": _parts(layer),
            "input_shapes": [list(tensor.sample_shape) for tensor in layer.inputs],
            "input_structure": layer.input_structure,
        }
    elif isinstance(layer, Sequential):
        entry["class"] = "Sequential"
        first = layer.inputs[0].node.layer
        entry["name"] = layer.name
        entry["input"] = _describe_layer(first, seen)
        entry["layers"] = [_describe_layer(inner, seen) for inner in layer.layers]
    elif isinstance(layer, Model):
        entry["class"] = "Model"
        entry |= _describe_network(layer, seen)
    elif REGISTRY.get(type(layer).__name__) is type(layer):
        entry["config"] = layer.get_config()
    else:
        entry |= {"custom": True, "config": _own_config(layer), "parts": _parts(layer)}
        if any(id(inner) in seen for _, inner in nested_layers(layer)):
            raise ValueError(
                f"save: {layer.owner}: expected layers of its own, got one that the model uses "
                "elsewhere too; save the weights with save_weights"
            )
    return entry


def _own_config(layer: Layer) -> Config:
    """get_config of a class of the user's; ValueError unless its constructor can take it back."""
    config = layer.get_config()
    owner = f"save: {layer.owner}: get_config"
    missing = [
        name
        for name, parameter in inspect.signature(type(layer).__init__).parameters.items()
        if name != "self"
        and name not in config
        and parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if missing:
        raise ValueError(
            f"{owner}: expected what __init__ takes, got no {missing}; define get_config(self) "
            f"that returns super().get_config() | {{{missing[0]!r}: self.{missing[0]}}}"
        )
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner}: expected numbers, texts, lists and dicts: {error}") from None
    return config


def _parts(layer: Layer) -> Config:
    """What the user has set of the sub-layers, by their paths: no constructor is told of it."""
    return {
        path: {"trainable": inner.trainable, "learning_rate_scale": inner.learning_rate_scale}
        for path, inner in nested_layers(layer)
        if not inner.trainable or inner.learning_rate_scale != 1.0
    }


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
            | ({} if node.training else {"training": False})
            for node in calls
        ],
        "inputs": [place(tensor) for tensor in model.inputs],
        "outputs": [place(tensor) for tensor in model.outputs],
        "input_structure": model.input_structure,
        "output_structure": model.output_structure,
    }


def rebuild(config: Config, custom_objects: CustomObjects | None = None) -> Model:
    """The model that ``describe`` described, with fresh weights; ValueError for anything else."""
    builder = _Rebuilding(custom_objects or {})
    try:
        model = builder.layer(config)
        builder.set_parts()
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the architecture is damaged ({type(error).__name__}: {error})") from None
    if not isinstance(model, Model):
        raise ValueError(f"the architecture is damaged: expected a model, got {model.owner}")
    return model


class _Rebuilding:
    """From a description to layers; ``seen`` has them in the order in which they were described."""

    def __init__(self, custom_objects: CustomObjects):
        self.custom_objects = custom_objects
        self.seen: list[Layer | None] = []
        self.parts: list[tuple[Layer, Config]] = []

    def layer(self, entry: Config) -> Layer:
        if "shared" in entry:
            layer = self.seen[entry["shared"]]
            if layer is None:
                raise ValueError("the architecture is damaged: a model contains itself")
            return layer
        number = len(self.seen)
        self.seen.append(None)
        kind = entry["class"]
        if entry.get("custom"):
            layer = self._custom(entry)
        elif kind == "Sequential":
            first = self.layer(entry["input"])
            inner = [self.layer(e) for e in entry["layers"]]
            layer = Sequential([first, *inner], name=entry["name"])
        elif kind == "Model":
            layer = self._network(entry)
        elif kind in REGISTRY:
            layer = REGISTRY[kind].from_config(entry["config"])
        else:
            raise ValueError(f"expected one of convlet's layers {sorted(REGISTRY)}, got {kind!r}")
        layer.auto_named = bool(entry["auto_named"])
        layer.learning_rate_scale = entry.get("learning_rate_scale", 1.0)
        self.seen[number] = layer
        return layer

    def _network(self, entry: Config) -> Model:
        layers = [self.layer(e) for e in entry["layers"]]
        calls: list[Node] = []

        def tensor(place: list[int]) -> SymbolicTensor:
            return calls[place[0]].outputs[place[1]]

        for call in entry["calls"]:
            layer = layers[call["layer"]]
            if isinstance(layer, InputLayer):
                calls.append(layer.start().node)
            else:
                node = layer.apply([tensor(place) for place in call["inputs"]])[0].node
                node.training = call.get("training", True) is not False
                calls.append(node)
        model = Model(
            pack([tensor(place) for place in entry["inputs"]], entry["input_structure"]),
            pack([tensor(place) for place in entry["outputs"]], entry["output_structure"]),
            name=entry["name"],
        )
        model._trainable = bool(entry["trainable"])
        return model

    def _custom(self, entry: Config) -> Layer:
        """A layer or model of a class that the caller has handed over."""
        name, kind = entry["config"].get("name", entry["class"]), entry["class"]
        found = self.custom_objects.get(kind)
        if found is None:
            raise ValueError(
                f"{name!r} is of the class {kind!r}, which is not convlet's: hand it over with "
                f"custom_objects={{{kind!r}: {kind}}}"
            )
        if not isinstance(found, type) or not issubclass(found, Layer):
            raise ValueError(
                f"custom_objects: expected a subclass of convlet.layers.Layer for {kind!r}, "
                f"got {found!r}"
            )
        layer = _construct(found, entry["config"])
        if "input_shapes" in entry:
            layer._describe_inputs(entry["input_shapes"], entry["input_structure"])
        self.parts.append((layer, entry["parts"]))
        return layer

    def set_parts(self) -> None:
        """Gives the sub-layers what the user had set of them, now that all are there."""
        for layer, parts in self.parts:
            for path, inner in nested_layers(layer):
                if path in parts:
                    inner._trainable = bool(parts[path]["trainable"])
                    inner.learning_rate_scale = parts[path]["learning_rate_scale"]


def _construct(kind: type[Layer], config: Config) -> Any:
    """A layer of the user's from its config. What every layer has (name, trainable) is set
    afterwards where the constructor does not take it."""
    parameters = inspect.signature(kind.__init__).parameters
    takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    common = {
        key: config[key]
        for key in ("name", "trainable")
        if key in config and key not in parameters and not takes_any
    }
    try:
        layer = kind.from_config({k: v for k, v in config.items() if k not in common})
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: its constructor refuses its config: {error}") from error
    layer.name = common.get("name", layer.name)
    layer._trainable = common.get("trainable", layer._trainable)
    return layer
