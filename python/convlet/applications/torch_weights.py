"""Weights that torchvision or timm saved, for networks whose layers bear the same names.

A layer named "layer1.0.conv1" takes "layer1.0.conv1.weight". `ENTRIES` says, for each weight of
each class of layer, what torch calls it and how its axes are turned; `RENAMED` brings the names of
other layouts of the same network to the one that the layers are named after.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.layers.base import Layer, Node
from convlet.layers.core import Dense, InputLayer, Rescaling
from convlet.layers.dropout import Dropout
from convlet.layers.input_normalization import Normalization
from convlet.layers.reshaping import Flatten
from convlet.layers.variable import Variable

Array = NDArray[Any]
Tensors = dict[str, Array]

HEAD = ("load", "skip")


def _window(weight: Array) -> Array:
    """Torch's (K, C / groups, R, S) as (R, S, C / groups, K)."""
    return weight.transpose(2, 3, 1, 0)


def _transposed(weight: Array) -> Array:
    return weight.T


def _same(weight: Array) -> Array:
    return weight


def _third(part: int) -> Callable[[Array], Array]:
    """Torch keeps the projections to queries, keys and values in one."""

    def turned(weight: Array) -> Array:
        width = len(weight) // 3
        return weight[part * width : (part + 1) * width].T

    return turned


# (class of layer, weight): (what follows the layer's name in torch, how to turn the axes into those
# of the graph's parameter; axes of size 1 do not count).
ENTRIES: dict[tuple[str, str], tuple[str, Callable[[Array], Array]]] = {
    ("Conv2D", "kernel"): (".weight", _window),
    ("Conv2D", "bias"): (".bias", _same),
    ("DepthwiseConv2D", "kernel"): (".weight", _window),
    ("DepthwiseConv2D", "bias"): (".bias", _same),
    ("Dense", "kernel"): (".weight", _transposed),
    ("Dense", "bias"): (".bias", _same),
    ("BatchNormalization", "gamma"): (".weight", _same),
    ("BatchNormalization", "beta"): (".bias", _same),
    ("BatchNormalization", "moving_mean"): (".running_mean", _same),
    ("BatchNormalization", "moving_variance"): (".running_var", _same),
    ("LayerNormalization", "gamma"): (".weight", _same),
    ("LayerNormalization", "beta"): (".bias", _same),
    ("LayerScale", "gamma"): ("", _same),
    ("ClassToken", "token"): ("", _same),
    ("PatchEmbedding", "kernel"): (".weight", _window),
    ("PatchEmbedding", "bias"): (".bias", _same),
    ("PositionEmbedding", "embeddings"): ("", _same),
    ("MultiHeadAttention", "query/kernel"): (".qkv.weight", _third(0)),
    ("MultiHeadAttention", "query/bias"): (".qkv.bias", _third(0)),
    ("MultiHeadAttention", "key/kernel"): (".qkv.weight", _third(1)),
    ("MultiHeadAttention", "key/bias"): (".qkv.bias", _third(1)),
    ("MultiHeadAttention", "value/kernel"): (".qkv.weight", _third(2)),
    ("MultiHeadAttention", "value/bias"): (".qkv.bias", _third(2)),
    ("MultiHeadAttention", "attention_output/kernel"): (".proj.weight", _transposed),
    ("MultiHeadAttention", "attention_output/bias"): (".proj.bias", _same),
}

# Layers whose numbers are part of the preprocessing, which torch keeps elsewhere.
PREPROCESSING = ("Normalization",)

# (pattern, replacement) from other layouts of the same networks to the names of our layers.
RENAMED: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    # Wrapped for several GPUs.
    (r"^module\.", ""),
    # torchvision's densenet121 of before 2018, still the file that it downloads.
    (r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),
    # timm's convnext.
    (r"^stem\.([01])\.", r"features.0.\1."),
    (r"^stages\.(\d)\.downsample\.", lambda m: f"features.{2 * int(m[1])}."),
    (r"^stages\.(\d)\.blocks\.(\d+)\.", lambda m: f"features.{2 * int(m[1]) + 1}.{m[2]}."),
    (r"^(features\.\d\.\d+)\.gamma$", r"\1.layer_scale"),
    (r"^(features\.\d\.\d+)\.conv_dw\.", r"\1.block.0."),
    (r"^(features\.\d\.\d+)\.norm\.", r"\1.block.2."),
    (r"^(features\.\d\.\d+)\.mlp\.fc1\.", r"\1.block.3."),
    (r"^(features\.\d\.\d+)\.mlp\.fc2\.", r"\1.block.5."),
    (r"^head\.norm\.", "classifier.0."),
    (r"^head\.fc\.", "classifier.2."),
    # torchvision's vision transformers.
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+)\.ln_([12])\.", r"\1.norm\2."),
    (r"^(blocks\.\d+)\.self_attention\.in_proj_", r"\1.attn.qkv."),
    (r"^(blocks\.\d+)\.self_attention\.out_proj\.", r"\1.attn.proj."),
    (r"^(blocks\.\d+)\.mlp\.0\.", r"\1.mlp.fc1."),
    (r"^(blocks\.\d+)\.mlp\.3\.", r"\1.mlp.fc2."),
)

# Counts of batches, which only a momentum of None in torch would use, and the classifiers of
# googlenet and inception_v3 that only their training had.
IGNORED = re.compile(r"\.num_batches_tracked$|^aux[12]\.|^AuxLogits\.")


def load_torch_weights(
    model: Any, file: str | PathLike[str], *, head: str = "load", verbose: bool = True
) -> None:
    """Fills a network of this package with the weights of a file that torchvision or timm wrote.

    Args:
        model: from `convlet.applications`, or any model whose layers bear torch's names.
        file: .safetensors; or .pth or .pt with a state dict, which torch itself reads
            (``weights_only=True``: nothing in the file is executed).
        head: "load", or "skip" to leave the last layer with weights, of every output, at its
            initial values: for other classes than the file's, whose last layer then has no place.
        verbose: print in one line what was loaded, what was left, and what input the model takes.

    Every tensor of the file must find its place and every weight its tensor, in shape too:
    otherwise nothing changes and ValueError lists what is missing, unexpected or misshapen.
    FileNotFoundError when there is no file; ImportError for a .pth without torch.
    """
    if head not in HEAD:
        raise ValueError(f"load_torch_weights: head: expected 'load' or 'skip', got {head!r}")
    where = f"load_torch_weights: {file}"
    tensors = {_renamed(name): value for name, value in _read(Path(file), where).items()}
    skipped = _heads(model) if head == "skip" else []
    values = _matched(model, tensors, skipped, where)
    with model._locked():
        for variable, value in values:
            variable.assign(value)
    if verbose:
        print(_report(model, len(values), file, skipped), flush=True)


def _matched(
    model: Any, tensors: Tensors, skipped: list[Layer], where: str
) -> list[tuple[Variable, Array]]:
    """The value of every weight, or ValueError with all that does not fit."""
    values, missing, misshapen = [], [], []
    unexpected = {name for name in tensors if not IGNORED.search(name)}
    calls = {id(node.layer): node for node in reversed(model.nodes_in_order)}
    for node in reversed(calls.values()):
        layer = node.layer
        if type(layer).__name__ in PREPROCESSING:
            continue
        for variable in layer.weights:
            name, turned = _entry(node, variable, where)
            unexpected.discard(name)
            if layer in skipped:
                continue
            if name not in tensors:
                missing.append(name)
                continue
            value = turned(tensors[name])
            if _sizes(value.shape) != _sizes(variable.graph_shape):
                misshapen.append(
                    f"{name} {tensors[name].shape} for {layer.name}/{variable.name} "
                    f"{variable.shape}"
                )
                continue
            values.append((variable, value.reshape(variable.shape)))
    if skipped and _is_one_dense_layer(unexpected, tensors):
        unexpected.clear()
    problems = [
        f"{what} {_some(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", sorted(unexpected)),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        problems.append(_hint(model, misshapen))
        text = "; ".join(filter(None, problems))
        raise ValueError(f"{where}: does not fit {model.name}: {text}")
    return values


def _entry(node: Node, variable: Variable, where: str) -> tuple[str, Callable[[Array], Array]]:
    """Torch's name of a weight of the layer that is called, and how to turn its axes."""
    layer = node.layer
    entry = ENTRIES.get((type(layer).__name__, variable.name))
    if entry is None:
        raise ValueError(f"{where}: {layer.owner}: torch's form of {variable.name!r} is not known")
    suffix, turned = entry
    image = _flattened_image(node)
    if variable.name == "kernel" and image is not None:
        turned = _after_flatten(image)
    return layer.name + suffix, turned


def _flattened_image(node: Node) -> tuple[int, ...] | None:
    """(H, W, C) of the image that a dense layer reads through a Flatten."""
    before = node.inputs[0].node
    while isinstance(before.layer, Dropout):
        before = before.inputs[0].node
    if not (isinstance(node.layer, Dense) and isinstance(before.layer, Flatten)):
        return None
    shape = before.inputs[0].sample_shape
    return shape if len(shape) == 3 else None


def _after_flatten(image: tuple[int, ...]) -> Callable[[Array], Array]:
    """Torch flattens (C, H, W) where we flatten (H, W, C)."""
    height, width, channels = image

    def turned(weight: Array) -> Array:
        if weight.ndim != 2 or weight.shape[1] != height * width * channels:
            return weight.T  # told as misshapen
        weight = weight.reshape(-1, channels, height, width)
        return weight.transpose(2, 3, 1, 0).reshape(height * width * channels, -1)

    return turned


def _sizes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _heads(model: Any) -> list[Layer]:
    """For every output the layer with weights that is nearest to it."""
    heads: list[Layer] = []
    for output in model.outputs:
        node = output.node
        while node.inputs and not node.layer.weights:
            node = node.inputs[0].node
        heads.append(node.layer)
    return heads


def _is_one_dense_layer(names: set[str], tensors: Tensors) -> bool:
    """Whether tensors are a matrix and maybe a bias of one name: the head of the file."""
    layers = {name.rpartition(".")[0] for name in names}
    if len(layers) != 1:
        return False
    (layer,) = layers
    weight = tensors.get(f"{layer}.weight")
    return names <= {f"{layer}.weight", f"{layer}.bias"} and weight is not None and weight.ndim == 2


def _hint(model: Any, misshapen: list[str]) -> str:
    heads = _heads(model)
    if misshapen and all(any(f" for {head.name}/" in text for head in heads) for text in misshapen):
        return "head='skip' leaves the last layer as it is, for another number of classes"
    return ""


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + rest


def _report(model: Any, count: int, file: Any, skipped: list[Layer]) -> str:
    parts = [f"{model.name}: {count} weights from {file}"]
    for layer in skipped:
        names = " and ".join(variable.name for variable in layer.weights)
        parts.append(f"{layer.name}: {names} left at their initial values")
    return "; ".join([*parts, _input(model)])


def _input(model: Any) -> str:
    """What becomes of the input, for the one who has to match it to the weights."""
    first = next((layer for layer in model.layers if not isinstance(layer, InputLayer)), None)
    if isinstance(first, Normalization):
        return "the model normalizes its input itself"
    done = f"multiplied by {first.scale:g}" if isinstance(first, Rescaling) else "taken as it is"
    return f"the input is {done}: normalize it as for these weights in torch (or see scale=)"


def _read(path: Path, where: str) -> Tensors:
    if not path.is_file():
        raise FileNotFoundError(f"{where}: no such file")
    if path.suffix in (".pth", ".pt"):
        return _read_pickled(path, where)
    if path.suffix != ".safetensors":
        raise ValueError(f"{where}: expected a .safetensors, .pth or .pt file")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError) as error:
        raise ValueError(f"{where}: cannot be read as safetensors: {error}") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in (np.float16, np.float32, np.float64) and not IGNORED.search(name):
            raise ValueError(
                f"{where}: {name}: expected floating-point numbers, got {tensor.dtype}"
            )
    return tensors


def _read_pickled(path: Path, where: str) -> Tensors:
    try:
        import torch
    except ImportError:
        raise ImportError(
            f"{where}: reading a {path.suffix} needs torch; with it, once: "
            "safetensors.torch.save_file(torch.load(file, weights_only=True), 'x.safetensors')"
        ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or refused pickle can raise anything
        raise ValueError(f"{where}: torch cannot load it safely: {error}") from None
    for key in ("state_dict", "model", "model_ema"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise ValueError(f"{where}: expected a state dict: tensors by name")
    return {name: value.float().numpy() for name, value in content.items()}
