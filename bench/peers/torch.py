"""torch on the CPU: eager in both layouts, compiled, with and without an allocator that keeps."""

from __future__ import annotations

import torch
from bench.peers import KEEP
from torch import nn

SETTINGS = {
    "train": {
        "default": {},
        "nchw keep": KEEP,
        "channels_last keep": KEEP,
        "compile keep": KEEP,
    },
    "infer": {
        "default": {},
        "channels_last keep": KEEP,
        "compile keep": KEEP,
    },
}


def versions():
    return {"torch": torch.__version__}


class Residual(nn.Module):
    def __init__(self, main, shortcut):
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x):
        return torch.relu(self.main(x) + self.shortcut(x))


def _build(steps, shape, output_shape):
    modules = []
    for step in steps:
        kind, *rest = step
        if kind == "conv":
            channels, size, stride, pad, bias = rest
            modules.append(nn.Conv2d(shape[2], channels, size, stride, pad, bias=bias))
        elif kind == "norm":
            modules.append(nn.BatchNorm2d(shape[2]))
        elif kind == "relu":
            modules.append(nn.ReLU(inplace=True))
        elif kind == "max_pool":
            modules.append(nn.MaxPool2d(*rest))
        elif kind == "average":
            modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        elif kind == "flatten":
            modules.append(nn.Flatten())
        elif kind == "dense":
            modules.append(nn.Linear(shape[0], rest[0]))
        elif kind == "residual":
            main, after = _build(rest[0], shape, output_shape)
            shortcut, _ = _build(rest[1], shape, output_shape)
            modules.append(Residual(main, shortcut))
            shape = after
            continue
        shape = output_shape(step, shape)
    return nn.Sequential(*modules), shape


def model_of(network, weights):
    """The network with these weights; images are (N,C,H,W)."""
    from bench.networks import output_shape, walk

    model, _ = _build(network.steps, network.input_shape, output_shape)
    flattened = [
        before
        for step, before, _ in walk(network.steps, network.input_shape)
        if step[0] == "flatten"
    ]
    arrays = iter(torch.from_numpy(a) for a in weights)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.copy_(next(arrays).permute(3, 2, 0, 1))
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.copy_(next(arrays))
        elif isinstance(module, nn.Linear):
            kernel = next(arrays)
            if flattened:  # rows in the order H,W,C; nn.Flatten gives C,H,W
                h, w, c = flattened.pop()
                kernel = kernel.reshape(h, w, c, -1).permute(2, 0, 1, 3).reshape(h * w * c, -1)
            module.weight.data.copy_(kernel.T)
        if getattr(module, "bias", None) is not None:
            module.bias.data.copy_(next(arrays))
    assert next(arrays, None) is None
    return model


def _arranged(setting, network, weights, images):
    model, x = model_of(network, weights), torch.from_numpy(images).permute(0, 3, 1, 2)
    if setting.startswith(("channels_last", "compile")):
        model = model.to(memory_format=torch.channels_last)
        return model, x.contiguous(memory_format=torch.channels_last)
    return model, x.contiguous()


def train(setting, network, weights, images, labels):
    model, x = _arranged(setting, network, weights, images)
    y = torch.from_numpy(labels)
    fused = setting != "default"
    if network.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), network.learning_rate, fused=fused)
    else:
        optimizer = torch.optim.SGD(
            model.parameters(), network.learning_rate, momentum=0.9, fused=fused
        )
    forward = torch.compile(model) if setting.startswith("compile") else model

    def step():
        optimizer.zero_grad(set_to_none=setting == "default")
        loss = nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def infer(setting, network, weights, images):
    model, x = _arranged(setting, network, weights, images)
    model.eval()
    forward = torch.compile(model) if setting.startswith("compile") else model

    def run():
        with torch.inference_mode():
            return forward(x).numpy()

    return run
