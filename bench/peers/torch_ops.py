"""The single ops of torch: of oneDNN, both layouts, with an allocator that keeps; of cuDNN,
channels_last, with the fastest of its kernels, in CUDA graphs. (No GPU setting has been run yet.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from bench.peers import (
    CALLS_OF_GRAPH,
    DROPOUT_RATE,
    KEEP,
    batched_times,
    checked_dropout,
    precision_of,
)
from bench.peers.torch import set_precision, versions

__all__ = ["SETTINGS", "op", "versions"]

_CUDA = ("cuda channels_last", "cuda channels_last tf32", "cuda channels_last bfloat16")
SETTINGS = {
    "ops": {"nchw keep": KEEP, "channels_last keep": KEEP} | {setting: {} for setting in _CUDA}
}


def op(setting, case, arrays, dtype=torch.float32):
    """A function that computes the case; its results are convlet's layout seen through views."""
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
    measured.show = lambda result: _on_host(shown(result))
    return measured


def _on_host(result):
    if isinstance(result, tuple):
        return tuple(_on_host(one) for one in result)
    return result.float().cpu().numpy()


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
        dy, x, w, None, stride, pad, [1, 1], False, [0, 0], _groups(options), mask
    )


def _groups(options):
    return options.get("groups", 1)


def _conv2d(options, x, w):
    stride, pad = options["stride"], options["padding"]
    groups = _groups(options)
    return lambda: F.conv2d(x, w, stride=stride, padding=pad, groups=groups), _image


def _conv2d_backward_input(options, dy, w):
    h, width, c = options["input"]
    x = torch.empty((len(dy), c, h, width), dtype=dy.dtype, device=dy.device)
    x = x.contiguous(memory_format=_layout(dy))
    return lambda: _convolution_backward(dy, x, w, options, [True, False, False])[0], _image


def _conv2d_backward_weight(options, dy, x):
    size = [options["window"]] * 2
    shape = (dy.shape[1], x.shape[1] // _groups(options), *size)
    w = torch.empty(shape, dtype=dy.dtype, device=dy.device)
    w = w.contiguous(memory_format=_layout(dy))
    return lambda: _convolution_backward(dy, x, w, options, [False, True, False])[1], _kernel


def _layout(tensor):
    last = tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not tensor.is_contiguous() else torch.contiguous_format


def _dense(options, x, weight):
    w = weight.t().contiguous()
    return lambda: F.linear(x, w), _as_it_is


def _dense_backward(options, dy, x, weight):
    """As autograd computes them of F.linear with a bias."""
    w = weight.t().contiguous()

    def run():
        return dy @ w, dy.t() @ x, dy.sum(0)

    return run, _transposed_second


def _transposed_second(gradients):
    dx, dw, db = gradients
    return dx, dw.t(), db


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
        return loss, torch.ops.aten._log_softmax_backward_data(dlogs, logs, 1, logs.dtype)

    return run, _as_it_is


def _batch_norm(options, x, gamma, beta):
    mean, variance = torch.zeros_like(gamma), torch.ones_like(gamma)
    return lambda: F.batch_norm(x, mean, variance, gamma, beta, True, 0.1, 1e-3), _image


def _batch_norm_backward(options, dy, x, gamma, beta):
    _, mean, inverse = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.1, 1e-3)
    backward = torch.ops.aten.native_batch_norm_backward
    mask = [True, True, True]
    return (
        lambda: backward(dy, x, gamma, None, None, mean, inverse, True, 1e-3, mask),
        _image_and_affine,
    )


def _image_and_affine(gradients):
    return _image(gradients[0]), *gradients[1:]


def _layer_norm(options, x, gamma, beta):
    return lambda: F.layer_norm(x, gamma.shape, gamma, beta, 1e-3), _as_it_is


def _layer_norm_backward(options, dy, x, gamma, beta):
    shape = gamma.shape
    _, mean, inverse = torch.native_layer_norm(x, shape, gamma, beta, 1e-3)
    backward, mask = torch.ops.aten.native_layer_norm_backward, [True, True, True]
    return lambda: backward(dy, x, shape, mean, inverse, gamma, beta, mask), _as_it_is


def _group_norm(options, x, gamma, beta):
    return lambda: F.group_norm(x, options["groups"], gamma, beta, 1e-3), _image


def _group_norm_backward(options, dy, x, gamma, beta):
    n, c, h, w = x.shape
    sizes = (n, c, h * w, options["groups"])
    _, mean, inverse = torch.native_group_norm(x, gamma, beta, *sizes, 1e-3)
    backward, mask = torch.ops.aten.native_group_norm_backward, [True, True, True]
    return lambda: backward(dy, x, mean, inverse, gamma, *sizes, mask), _image_and_affine


def _gradients(function, dy, *inputs):
    """The gradients by autograd, from what a forward before has kept."""
    with torch.enable_grad():
        leaves = [x.requires_grad_() for x in inputs]
        y = function(*leaves)
    return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)


def _checked_dropout(x):
    def shown(y):
        y, given = (_on_host(_image(t)) for t in (y, x))
        return torch.from_numpy(checked_dropout(y, given))

    return shown


def _dropout(options, x):
    return lambda: F.dropout(x, DROPOUT_RATE), _checked_dropout(x)


def _dropout_backward(options, dy):
    """As autograd computes it on a CPU: times what the forward drew and kept."""
    noise = torch.empty_like(dy).bernoulli_(1 - DROPOUT_RATE).div_(1 - DROPOUT_RATE)
    return lambda: dy * noise, _checked_dropout(dy)


def _upsampling(options):
    align = {} if options["interpolation"] == "nearest" else {"align_corners": False}
    return lambda x: F.interpolate(x, scale_factor=2, mode=options["interpolation"], **align)


def _upsample2d(options, x):
    function = _upsampling(options)
    return lambda: function(x), _image


def _upsample2d_backward(options, dy):
    h, w, c = options["input"]
    x = torch.zeros((len(dy), c, h, w), dtype=dy.dtype, device=dy.device)
    x = x.contiguous(memory_format=_layout(dy))
    return _gradients(_upsampling(options), dy, x), lambda gradients: _image(gradients[0])


def _attend(options):
    def function(q, k, v):
        heads = (t.unflatten(2, (options["heads"], -1)).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)

    return function


def _attention(options, q, k, v):
    function = _attend(options)
    return lambda: function(q, k, v), _as_it_is


def _attention_backward(options, dy, q, k, v):
    return _gradients(_attend(options), dy, q, k, v), _as_it_is


def _lstm_of(x, kernel, recurrent_kernel, bias):
    """The layer as a function of x and torch's weights, and those; torch's order of gates is ours,
    and it has a second bias."""
    weights = [kernel.t().contiguous(), recurrent_kernel.t().contiguous(), bias, bias * 0]
    start = torch.zeros((1, len(x), len(recurrent_kernel)), dtype=x.dtype, device=x.device)

    def function(x, *weights):
        return torch.lstm(x, [start, start], weights, True, 1, 0.0, False, False, True)[0]

    return function, weights


def _lstm(options, x, **given):
    function, weights = _lstm_of(x, **given)
    return lambda: function(x, *weights), _as_it_is


def _lstm_backward(options, dy, x, **given):
    function, weights = _lstm_of(x, **given)
    return _gradients(function, dy, x, *weights), _of_kernels


def _of_kernels(gradients):
    """Of torch's weights, (4U,I) and (4U,U), and of one of its two biases."""
    dx, dkernel, drecurrent, dbias, _ = gradients
    return dx, dkernel.t(), drecurrent.t(), dbias


def _optimizer(kind, **settings):
    def make(options, p, g):
        p.grad = g
        how = {} if kind is torch.optim.RMSprop else {"fused": True}  # there is no fused one
        if p.is_cuda and kind is not torch.optim.SGD:  # in a graph
            how["capturable"] = True
        optimizer = kind([p], lr=1e-3, **settings, **how)

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
    "relu_backward": lambda options, dy, y: (
        lambda: torch.ops.aten.threshold_backward(dy, y, 0.0),
        _image,
    ),
    "gelu": lambda options, x: (lambda: F.gelu(x), _image),
    "gelu_backward": lambda options, dy, x: (lambda: torch.ops.aten.gelu_backward(dy, x), _image),
    "add": lambda options, a, b: (lambda: a + b, _image),
    "softmax": lambda options, x: (lambda: torch.softmax(x, 1), _as_it_is),
    "softmax_backward": lambda options, dy, y: (
        lambda: torch.ops.aten._softmax_backward_data(dy, y, 1, y.dtype),
        _as_it_is,
    ),
    "dropout": _dropout,
    "dropout_backward": _dropout_backward,
    "upsample2d": _upsample2d,
    "upsample2d_backward": _upsample2d_backward,
    "attention": _attention,
    "attention_backward": _attention_backward,
    "lstm": _lstm,
    "lstm_backward": _lstm_backward,
    "dense": _dense,
    "dense_backward": _dense_backward,
    "mean_of_pixels": lambda options, x: (lambda: x.mean((2, 3)), _as_it_is),
    "softmax_cross_entropy": _softmax_cross_entropy,
    "batch_norm": _batch_norm,
    "batch_norm_backward": _batch_norm_backward,
    "layer_norm": _layer_norm,
    "layer_norm_backward": _layer_norm_backward,
    "group_norm": _group_norm,
    "group_norm_backward": _group_norm_backward,
    "sgd": _optimizer(torch.optim.SGD, momentum=0.9),
    "rmsprop": _optimizer(torch.optim.RMSprop, alpha=0.9, eps=1e-7),
    "adam": _optimizer(torch.optim.Adam, eps=1e-7),
}
