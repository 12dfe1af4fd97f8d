"""torch on the CPU: eager in both layouts, compiled, with and without an allocator that keeps.

On a GPU: channels_last with the fastest of cuDNN's kernels, compiled with max-autotune, and the
step captured as a CUDA graph; bfloat16 by autocast. (No GPU setting has been run yet.)
"""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace

import torch
from bench.peers import BATCHES_OF_EPOCH, KEEP, precision_of
from torch import nn

_CUDA = {
    " ".join(words).strip(): {}
    for words in itertools.product(
        ("cuda",), ("channels_last", "compile", "graph"), ("", "tf32", "bfloat16")
    )
}
SETTINGS = {
    "train": {
        "default": {},
        "nchw keep": KEEP,
        "channels_last keep": KEEP,
        "compile keep": KEEP,
        "channels_last bfloat16 keep": KEEP,
        "compile bfloat16 keep": KEEP,
        **_CUDA,
    },
    "infer": {
        "default": {},
        "nchw keep": KEEP,
        "channels_last keep": KEEP,
        "compile keep": KEEP,
        "channels_last bfloat16 keep": KEEP,
        "compile bfloat16 keep": KEEP,
        **_CUDA,
    },
}


def versions():
    return {"torch": torch.__version__}


def set_precision(precision):
    """What float32 is multiplied in on a GPU, by the fastest of cuDNN's kernels."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


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


def _options(setting):
    """What the words of a setting mean."""
    words, precision = setting.split(), precision_of(setting)
    device = "cuda" if "cuda" in words else "cpu"
    if device == "cuda":
        set_precision(precision)
    return SimpleNamespace(
        device=device,
        channels_last=device == "cuda" or bool({"channels_last", "compile"} & set(words)),
        compiled="compile" in words,
        graph="graph" in words,
        autocast=precision == "bfloat16",
        mode="max-autotune" if device == "cuda" else None,
    )


def _arranged(options, network, weights, images):
    """(model, images, forward): forward is the model, compiled and under autocast if asked for."""
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    model = model_of(network, weights).to(options.device, memory_format=layout)
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    x = x.to(options.device).contiguous(memory_format=layout)
    forward = torch.compile(model, mode=options.mode) if options.compiled else model
    if not options.autocast:
        return model, x, forward

    def cast(x):
        with torch.autocast(options.device, torch.bfloat16, cache_enabled=not options.graph):
            return forward(x).float()

    return model, x, cast


def _captured(function, model, optimizer=None):
    """``function`` as one CUDA graph, which returns the tensor that it returned. The weights and
    the optimizer's state are afterwards what they were."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    model.load_state_dict(kept)
    for state in optimizer.state.values() if optimizer else ():
        for value in state.values():
            value.zero_()

    def replay():
        graph.replay()
        return result

    return replay


def train(setting, network, weights, images, labels):
    options = _options(setting)
    model, x, forward = _arranged(options, network, weights, images)
    y = torch.from_numpy(labels).to(options.device)
    fused = setting != "default"
    if network.optimizer == "adam":
        optimizer = torch.optim.Adam(
            model.parameters(), network.learning_rate, fused=fused, capturable=options.graph
        )
    else:
        optimizer = torch.optim.SGD(
            model.parameters(), network.learning_rate, momentum=0.9, fused=fused
        )

    def update():
        optimizer.zero_grad(set_to_none=options.graph or setting == "default")
        loss = nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = _captured(update, model, optimizer) if options.graph else update

    def step():
        return run().item()

    def epochs(seconds, least):
        """The time of a step in each epoch; the host waits at its end, as convlet's does."""
        times, now = [], time.perf_counter()
        end = now + seconds
        while len(times) < least or now < end:
            start = now
            for _ in range(BATCHES_OF_EPOCH):
                run()
            torch.cuda.synchronize()
            now = time.perf_counter()
            times.append(1e3 * (now - start) / BATCHES_OF_EPOCH)
        return times

    if options.device == "cuda":
        step.times = epochs
    return step


def infer(setting, network, weights, images):
    options = _options(setting)
    model, x, forward = _arranged(options, network, weights, images)
    model.eval()
    with torch.inference_mode():
        run = _captured(lambda: forward(x), model) if options.graph else lambda: forward(x)
    host = x.cpu().pin_memory() if options.device == "cuda" else None

    def logits():
        """On a GPU from images on the host, as convlet's are."""
        with torch.inference_mode():
            if host is not None:
                x.copy_(host, non_blocking=True)
            y = run()
            return (y.cpu() if y.is_cuda else y).numpy()

    return logits
