"""torchvision's and timm's networks with weights that hide nothing: no statistic is 0 or 1."""

import importlib
import sys

import torch


def torchvision():
    """The package; where its compiled ops do not load, with the two names defined that it needs
    to be imported at all (no classifier uses them)."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("torchvision")


_library = torch.library.Library("torchvision", "FRAGMENT")


def timm():
    """The package, which imports torchvision."""
    torchvision()
    return importlib.import_module("timm")


def randomized(module, seed=0):
    """The module in eval mode, with random biases, scales and statistics."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.data.uniform_(low, high, generator=generator)

    for part in module.modules():
        norm = isinstance(part, (torch.nn.BatchNorm2d, torch.nn.LayerNorm))
        if norm:
            uniform(part.weight, 0.5, 1.5)
        if getattr(part, "bias", None) is not None:
            uniform(part.bias, -0.2, 0.2)
        if isinstance(part, torch.nn.BatchNorm2d):
            uniform(part.running_mean, -0.2, 0.2)
            uniform(part.running_var, 0.5, 1.5)
    for name, parameter in module.named_parameters():
        if name.endswith(("layer_scale", "gamma")):
            uniform(parameter, 0.2, 1)
        if name.endswith(("cls_token", "class_token", "pos_embed", "pos_embedding")):
            uniform(parameter, -0.2, 0.2)
    return module.eval()


def logits(module, x):
    """The module's output for images (N,H,W,C)."""
    with torch.inference_mode():
        return module(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
