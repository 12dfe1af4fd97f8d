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


def randomized(module, images, seed=0):
    """The module in eval mode, with random weights that let the images (N,H,W,C) through: the
    moving averages are near what these images give, so the outputs depend on them."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.data.uniform_(low, high, generator=generator)

    batch_norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for part in module.modules():
        if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(part.weight, generator=generator)
        elif isinstance(part, (torch.nn.BatchNorm2d, torch.nn.LayerNorm)):
            uniform(part.weight, 0.5, 1.5)
        if getattr(part, "bias", None) is not None:
            uniform(part.bias, -0.2, 0.2)
    for name, parameter in module.named_parameters():
        if name.endswith(("layer_scale", "gamma")):
            uniform(parameter, 0.2, 1)
        if name.endswith(("cls_token", "class_token", "pos_embed", "pos_embedding")):
            uniform(parameter, -0.2, 0.2)
    if batch_norms:
        for part in batch_norms:
            part.momentum = 1.0
        logits(module.train(), images)
        for part in batch_norms:  # a channel that hardly varied would amplify rounding
            variance = part.running_var
            uniform(factor := torch.empty_like(variance), 1, 2)
            part.running_var = torch.maximum(variance, variance.mean()) * factor
    return module.eval()


def logits(module, x):
    """The module's output for images (N,H,W,C)."""
    with torch.inference_mode():
        return module(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
