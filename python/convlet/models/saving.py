"""Models as files: safetensors, with everything but the numbers as JSON in its metadata.

tensors   "weights/<layer>/<weight>", "optimizer/<slot>/<layer>/<weight>"
metadata  "convlet": JSON {"format", "convlet_version", "kind": "model" or "weights", and for a
model
          "architecture", "seed", "class_names", "thresholds", "preprocessing", "training"
          (null, or the arguments of compile and the count of batches)}

Nothing in a file is executed or imported: layers come from a fixed registry and from the caller.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import _core, losses, metrics, optimizers
from convlet.devices import resolve_device
from convlet.models.architecture import describe, rebuild
from convlet.models.compilation import OutputMetric
from convlet.models.lowering import Parameter
from convlet.models.model import Model
from convlet.utils.files import model_path, write_whole

FORMAT = 1  # raised when an older convlet could not read the file

Tensors = dict[str, NDArray[np.float32]]


def save_model(model: Model, path: Any) -> None:
    """See Model.save."""
    path = model_path(path, "save: path")
    tensors = _weights(model, "save")
    training = None
    if model.compiled:
        training = _describe_training(model)
        tensors |= {f"optimizer/{name}": slot for name, slot in model._engine().slots().items()}
    preprocessing = model.preprocessing
    _write(
        path,
        tensors,
        {
            "kind": "model",
            "architecture": describe(model),
            "seed": model.seed,
            "class_names": model.class_names,
            "thresholds": model.thresholds,
            "preprocessing": None if preprocessing is None else preprocessing.to_config(),
            "training": training,
        },
    )


def save_weights(model: Model, path: Any) -> None:
    """See Model.save_weights."""
    path = model_path(path, "save_weights: path")
    _write(path, _weights(model, "save_weights"), {"kind": "weights"})


def _weights(model: Model, owner: str) -> Tensors:
    if not model.built:
        raise ValueError(
            f"{owner}: {model.owner}: expected a built model; give its input shape or data"
        )
    tensors: Tensors = {}
    with model._engine().lock:
        for parameter in _saved_parameters(model):
            name = f"weights/{parameter.name}"
            if name in tensors:
                raise ValueError(
                    f"{owner}: {model.owner}: expected layers with different names, "
                    f"got two weights named {parameter.name!r}"
                )
            tensors[name] = parameter.variable.numpy()
    return tensors


def _saved_parameters(model: Model) -> list[Parameter]:
    """All but the constants, which the architecture holds."""
    return [p for p in model._engine().parameters if not p.variable.constant]


def _describe_training(model: Model) -> dict[str, Any]:
    compilation, engine = model._compilation, model._engine()
    assert compilation is not None
    count = len(model.outputs)
    loss: list[Any] = [None] * count
    weights: list[Any] = [None] * count
    watched: list[list[Any]] = [[] for _ in range(count)]
    for output_loss in compilation.losses:
        entry = losses.serialize(output_loss.loss)
        if output_loss.target_shape is not None:
            entry["target_shape"] = list(output_loss.target_shape)
        loss[output_loss.output] = entry
        weights[output_loss.output] = output_loss.weight
    for metric in compilation.metrics:
        entry = _describe_metric(metric)
        if entry is None:
            warnings.warn(
                f"save: the metric {metric.key!r} is not convlet's and is left out of the file",
                stacklevel=4,
            )
        else:
            watched[metric.output].append(entry)
    if not compilation.optimizer.rate_is_writable:
        warnings.warn(
            "save: the learning rate follows a function, which a file cannot hold: "
            "the rate of the moment is saved instead",
            stacklevel=4,
        )
    return {
        "optimizer": optimizers.serialize(compilation.optimizer),
        "loss": loss,
        "loss_weights": weights,
        "metrics": watched,
        "precision": model.precision,
        "winograd": model.winograd,
        "batches": int(engine.state.batches),
        "trained": [parameter.name for parameter in engine.parameters if parameter.trainable],
        "averaged": engine.averaged,
    }


def _describe_metric(metric: OutputMetric) -> Any:
    named = isinstance(metric.request, str)
    return metric.request if named else metrics.serialize(metric.metric)


def _write(path: Path, tensors: Tensors, content: dict[str, Any]) -> None:
    from safetensors.numpy import save

    content = {"format": FORMAT, "convlet_version": _core.__version__} | content
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    data = save(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, {"convlet": text}
    )
    write_whole(path, data)


def load_model(
    path: Any,
    custom_objects: dict[str, Any] | None = None,
    compile: bool = True,
    device: str = "auto",
    precision: str | None = None,
) -> Model:
    """The model of a file that ``save`` wrote, ready to predict or to go on training.

    Args:
        custom_objects: the classes of layers, and the classes or functions of losses, of your own
            by their names. A file names them, but nothing is imported by that name.
        compile: whether to bring back optimizer, loss and metrics.
        device: "auto", "cpu" or "cuda", as in Model.compile.
        precision: as in Model.compile. None is that of the file or, where this machine lacks it,
            float32 with a warning. Without ``compile`` it is float32.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged, not convlet's, from a newer convlet, or does not fit
            itself.
    """
    content, tensors = _read(path, "load_model")
    where = f"load_model: {path}"
    if content["kind"] != "model":
        raise ValueError(f"{where}: expected a model, got weights only: use model.load_weights")
    try:
        model = rebuild(content["architecture"], custom_objects)
        _take_weights(model, tensors, where)
        model.seed = int(content["seed"])
        model.forget_engine()
        model.class_names = content["class_names"]
        model.thresholds = content.get("thresholds")  # files of older versions have none
        if content["preprocessing"] is not None:
            from convlet.data import Preprocessing

            model.preprocessing = Preprocessing.from_config(content["preprocessing"])
        if compile and content["training"] is not None:
            training = content["training"]
            training["precision"] = precision or _precision_here(training, device, where)
            _resume(model, training, tensors, device, where, custom_objects)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: damaged ({type(error).__name__}: {error})") from None
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(where) else f"{where}: {text}") from None
    return model


def _precision_here(training: dict[str, Any], device: str, where: str) -> str:
    precision: str = training["precision"]
    if precision in ("tf32", "bfloat16"):
        try:
            _core.check_precision(resolve_device(device), precision)
        except ValueError as error:
            warnings.warn(f"{where}: trained in {precision}, float32 here: {error}", stacklevel=3)
            return "float32"
    return precision


def _resume(
    model: Model,
    training: dict[str, Any],
    tensors: Tensors,
    device: str,
    where: str,
    custom_objects: dict[str, Any] | None,
) -> None:
    described = training["loss"]
    model.compile(
        training["optimizer"],
        [None if loss is None else losses.get(loss, custom_objects) for loss in described],
        training["loss_weights"],
        training["metrics"],
        device=device,
        precision=training["precision"],
        winograd=training.get("winograd", "inference"),  # files of older versions have none
    )
    assert model._compilation is not None
    for output_loss in model._compilation.losses:
        if "target_shape" in described[output_loss.output]:
            output_loss.target_shape = tuple(described[output_loss.output]["target_shape"])
    engine = model._engine()
    found = {
        n.removeprefix("optimizer/"): t for n, t in tensors.items() if n.startswith("optimizer/")
    }
    # What was frozen or thawed after the saved compile was compiled in another way than just now:
    # the state of the former is not needed, that of the latter begins at zero.
    trained = set(training["trained"])
    expected = {
        f"{slot}/{parameter.name}": parameter.variable.graph_shape
        for slot in engine.state.slot_names()
        for parameter in engine.parameters
        if parameter.name in trained
    }
    _check_tensors(expected, found, f"{where}: optimizer")
    engine.set_slots(engine.slots() | found)
    engine.state.batches = int(training["batches"])
    engine.averaged = bool(training["averaged"])


def load_weights(model: Model, path: Any) -> None:
    """See Model.load_weights."""
    if not model.built:
        raise ValueError(f"load_weights: {model.owner}: expected a built model")
    _, tensors = _read(path, "load_weights")
    _take_weights(model, tensors, f"load_weights: {path}")


def _take_weights(model: Model, tensors: Tensors, where: str) -> None:
    parameters = {p.name: p.variable for p in _saved_parameters(model)}
    found = {n.removeprefix("weights/"): t for n, t in tensors.items() if n.startswith("weights/")}
    _check_tensors({name: v.shape for name, v in parameters.items()}, found, f"{where}: weights")
    with model._engine().lock:
        for name, variable in parameters.items():
            variable.assign(found[name])


def _check_tensors(expected: dict[str, tuple[int, ...]], found: Tensors, where: str) -> None:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        raise ValueError(
            f"{where}: expected {len(expected)} tensors, got {len(found)}; "
            f"missing {missing[:5]}, unexpected {extra[:5]}"
        )
    for name, shape in expected.items():
        if found[name].shape != tuple(shape):
            raise ValueError(f"{where}: {name}: expected shape {shape}, got {found[name].shape}")


def _read(path: Any, owner: str) -> tuple[dict[str, Any], Tensors]:
    """The JSON and the tensors of a file, checked as far as it can be without a model."""
    from safetensors import SafetensorError, safe_open

    where = f"{owner}: {path}"
    if not Path(path).is_file():
        raise FileNotFoundError(f"{where}: no such file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            content = _parse(file.metadata(), where)
            tensors: Tensors = {}
            for name in file.keys():  # noqa: SIM118 (not a dict)
                dtype = file.get_slice(name).get_dtype()
                if dtype != "F32":
                    raise ValueError(f"{where}: {name}: expected float32 (F32), got {dtype}")
                tensors[name] = file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(
            f"{where}: expected a model that convlet saved; the file is damaged, cut short or of "
            f"another kind ({error})"
        ) from None
    return content, tensors


def _parse(metadata: Any, where: str) -> dict[str, Any]:
    if not metadata or "convlet" not in metadata:
        raise ValueError(
            f"{where}: expected a file that convlet saved, got safetensors of other origin"
        )
    try:
        content = json.loads(metadata["convlet"])
        version = content["format"]
        written_by = content["convlet_version"]
        kind = content["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: the description in the file is damaged ({error})") from None
    if not isinstance(version, int) or version > FORMAT:
        raise ValueError(
            f"{where}: expected format {FORMAT} or older, got format {version}, written by convlet "
            f"{written_by}; this is convlet {_core.__version__}: upgrade it"
        )
    if kind not in ("model", "weights"):
        raise ValueError(f"{where}: expected a model or weights, got {kind!r}")
    return content
