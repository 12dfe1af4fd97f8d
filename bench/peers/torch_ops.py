"""The single ops of torch: of oneDNN, both layouts, with an allocator that keeps; of cuDNN,
channels_last, with the fastest of its kernels, in CUDA graphs. (No GPU setting has been run yet.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from bench.peers import CALLS_OF_GRAPH, KEEP, batched_times, precision_of
from bench.peers.torch import set_precision, versions

__all__ = ["SETTINGS", "op", "versions"]

_CUDA = ("cuda channels_last", "cuda channels_last tf32", "cuda channels_last bfloat16")
SETTINGS = {
    "ops": {"nchw keep": KEEP, "channels_last keep": KEEP} | {setting: {} for setting in _CUDA}
}


def op(setting, case, arrays, dtype=torch.float32):
    """A function that computes the case; its result is convlet's layout seen through a view."""
    words, precision = setting.split(), precision_of(setting)
    device = "cuda" if "cuda" in words else "cpu"
    if device == "cuda":
        set_precision(precision)
        dtype = torch.bfloat16 if precision == "bfloat16" else dtype
    layout = torch.channels_last if "channels_last" in words else torch.contiguous_format
    tensors = {
        name: _arranged(name, array, layout, dtype).to(device) for name, array in arrays.items()
    }
    run, shown = _OPS[case.op](case.options, **tensors)

    def measured():
        with torch.no_grad():
            return run()

    if device == "cuda":
        measured.times = _graph_times(measured)
    measured.show = lambda result: shown(result).float().cpu().numpy()
    return measured


def _graph_times(run):
    """As convlet's calls are timed on a GPU: by a CUDA graph of many."""

    def times(seconds, least):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(CALLS_OF_GRAPH):
                run()
        return batched_times(graph.replay, torch.cuda.synchronize, seconds, least)

    return times


def _arranged(name, array, layout, dtype):
    tensor = torch.from_numpy(array)
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.to(dtype)
    if name == "w":
        tensor = tensor.permute(3, 2, 0, 1)
    elif tensor.ndim == 4:
        tensor = tensor.permute(0, 3, 1, 2)
    if tensor.ndim < 4:
        return tensor
    return tensor.contiguous(memory_format=layout)


def _image(y):
    return y.permute(0, 2, 3, 1)


def _kernel(w):
    return w.permute(2, 3, 1, 0)


def _as_it_is(y):
    return y


def _convolution_backward(dy, x, w, options, mask):
    stride, pad = [options["stride"]] * 2, [options["padding"]] * 2
    return torch.ops.aten.convolution_backward(
        dy, x, w, None, stride, pad, [1, 1], False, [0, 0], 1, mask
    )


def _conv2d(options, x, w):
    stride, pad = options["stride"], options["padding"]
    return lambda: F.conv2d(x, w, stride=stride, padding=pad), _image


def _conv2d_backward_input(options, dy, w):
    h, width, c = options["input"]
    x = torch.empty((len(dy), c, h, width), dtype=dy.dtype, device=dy.device)
    x = x.contiguous(memory_format=_layout(dy))
    return lambda: _convolution_backward(dy, x, w, options, [True, False, False])[0], _image


def _conv2d_backward_weight(options, dy, x):
    size = [options["window"]] * 2
    w = torch.empty((dy.shape[1], x.shape[1], *size), dtype=dy.dtype, device=dy.device)
    w = w.contiguous(memory_format=_layout(dy))
    return lambda: _convolution_backward(dy, x, w, options, [False, True, False])[1], _kernel


def _layout(tensor):
    last = tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not tensor.is_contiguous() else torch.contiguous_format


def _max_pool2d(options, x):
    return lambda: F.max_pool2d(x, options["window"], options["stride"]), _image


def _max_pool2d_backward(options, dy, x):
    window, stride = [options["window"]] * 2, [options["stride"]] * 2
    indices = F.max_pool2d(x, window, stride, return_indices=True)[1]
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    return lambda: backward(dy, x, window, stride, [0, 0], [1, 1], False, indices), _image


def _avg_pool2d(options, x):
    return lambda: F.avg_pool2d(x, options["window"], options["stride"]), _image


def _avg_pool2d_backward(options, dy):
    window, stride = [options["window"]] * 2, [options["stride"]] * 2
    h, w, c = options["input"]
    x = torch.empty((len(dy), c, h, w), dtype=dy.dtype, device=dy.device)
    x = x.contiguous(memory_format=_layout(dy))
    backward = torch.ops.aten.avg_pool2d_backward
    return lambda: backward(dy, x, window, stride, [0, 0], False, True, None), _image


def _softmax_cross_entropy(options, logits, labels):
    """Loss and gradient as autograd would call them."""
    count = torch.tensor(float(len(labels)), dtype=logits.dtype, device=logits.device)

    def run():
        logs = torch.log_softmax(logits, 1)
        loss = F.nll_loss(logs, labels)
        one = torch.ones_like(loss)
        dlogs = torch.ops.aten.nll_loss_backward(one, logs, labels, None, 1, -100, count)
        return torch.ops.aten._log_softmax_backward_data(dlogs, logs, 1, logs.dtype)

    return run, _as_it_is


def _batch_norm(options, x, gamma, beta):
    mean, variance = torch.zeros_like(gamma), torch.ones_like(gamma)
    return lambda: F.batch_norm(x, mean, variance, gamma, beta, True, 0.1, 1e-3), _image


def _batch_norm_backward(options, dy, x, gamma, beta):
    _, mean, inverse = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.1, 1e-3)
    backward = torch.ops.aten.native_batch_norm_backward
    return (
        lambda: backward(dy, x, gamma, None, None, mean, inverse, True, 1e-3, [True, True, True])[
            0
        ],
        _image,
    )


def _optimizer(kind, **settings):
    def make(options, p, g):
        p.grad = g
        adam_in_a_graph = {"capturable": True} if p.is_cuda and kind is torch.optim.Adam else {}
        optimizer = kind([p], lr=1e-3, fused=True, **settings, **adam_in_a_graph)

        def run():
            optimizer.step()
            return p

        return run, _as_it_is

    return make


_OPS = {
    "conv2d": _conv2d,
    "conv2d_backward_input": _conv2d_backward_input,
    "conv2d_backward_weight": _conv2d_backward_weight,
    "max_pool2d": _max_pool2d,
    "max_pool2d_backward": _max_pool2d_backward,
    "avg_pool2d": _avg_pool2d,
    "avg_pool2d_backward": _avg_pool2d_backward,
    "relu": lambda options, x: (lambda: torch.relu(x), _image),
    "gelu": lambda options, x: (lambda: F.gelu(x), _image),
    "softmax_cross_entropy": _softmax_cross_entropy,
    "batch_norm": _batch_norm,
    "batch_norm_backward": _batch_norm_backward,
    "sgd": _optimizer(torch.optim.SGD, momentum=0.9),
    "adam": _optimizer(torch.optim.Adam, eps=1e-7),
}
