"""The single ops of convlet, with their results written into memory that is there already."""

from __future__ import annotations

import itertools
import math

import numpy as np
from bench.peers import (
    CALLS_OF_GRAPH,
    DROPOUT_RATE,
    batched_times,
    checked_dropout,
    precision_of,
)
from bench.peers.convlet import gpu, versions

from convlet import _core, ops
from convlet._cuda_arrays import empty_dlpack

__all__ = ["SETTINGS", "op", "versions"]

SETTINGS = {"ops": {s: {} for s in ("default", "cuda", "cuda tf32", "cuda bfloat16")}}


class _Host:
    """Arrays that begin with a line of the cache, as those of a plan, of ops and of torch do."""

    def put(self, array):
        there = self.empty(array.shape, array.dtype)
        there[...] = array
        return there

    def empty(self, shape, dtype=np.float32):
        size = math.prod(shape) * np.dtype(dtype).itemsize
        room = np.empty(size + 64, np.uint8)
        first = -room.ctypes.data % 64
        return room[first : first + size].view(dtype).reshape(shape)

    def zeros(self, shape):
        return self.put(np.zeros(shape, np.float32))


class _Gpu:
    """Arrays in the GPU's memory, on convlet's own stream."""

    def __init__(self):
        self.device = gpu()
        self.stream = _core.own_stream(self.device)

    def put(self, array):
        there = _core.DeviceArray.own(
            self.device, self.stream, array.shape, array.dtype.name, empty_dlpack
        )
        there.copy_from(np.ascontiguousarray(array))
        return there

    def empty(self, shape):
        return self.put(np.full(shape, np.nan, np.float32))

    def zeros(self, shape):
        return self.put(np.zeros(shape, np.float32))

    def timed(self, run):
        """run with the times of its calls: of a graph of many, or where it cannot be recorded, as
        the host sends numbers or looks at some, of many calls between two waits."""

        def measured():
            return run()

        def calls():
            for _ in range(CALLS_OF_GRAPH):
                run()

        def times(seconds, least):
            try:
                recording = _core.record(self.device, calls)
            except ValueError:
                recording = None
            replay = recording.replay if recording else calls
            return batched_times(replay, lambda: _core.wait(self.device), seconds, least)

        measured.times = times
        show = getattr(run, "show", lambda result: result)
        measured.show = lambda result: show(_on_host(result))
        return measured


def _on_host(result):
    """Arrays, in a tuple or alone; numbers are on the host."""
    if isinstance(result, tuple):
        return tuple(_on_host(one) for one in result)
    return result.numpy() if isinstance(result, _core.DeviceArray) else result


def op(setting, case, arrays):
    """A function that computes the case and returns its result."""
    place = _Gpu() if "cuda" in setting.split() else _Host()
    options = case.options | {"precision": precision_of(setting)}
    there = {name: place.put(array) for name, array in arrays.items()}
    run = _OPS[case.op](place, options, **there)
    return place.timed(run) if isinstance(place, _Gpu) else run


def _geometry(options):
    given = {"groups": 1} | options
    return {name: given[name] for name in ("stride", "padding", "groups", "precision")}


def _conv2d(place, options, x, w):
    y = ops.conv2d(x, w, **_geometry(options))
    return lambda: ops.conv2d(x, w, **_geometry(options), out=y)


def _conv2d_backward_input(place, options, dy, w):
    dx = place.empty((dy.shape[0], *options["input"]))
    return lambda: ops.conv2d_backward_input(dy, w, dx.shape, **_geometry(options), out=dx)


def _conv2d_backward_weight(place, options, dy, x):
    size = (options["window"], options["window"])
    dw = ops.conv2d_backward_weight(dy, x, size, **_geometry(options))
    return lambda: ops.conv2d_backward_weight(dy, x, size, **_geometry(options), out=dw)


def _dense(place, options, x, weight):
    y = ops.dense(x, weight, precision=options["precision"])
    return lambda: ops.dense(x, weight, precision=options["precision"], out=y)


def _dense_backward(place, options, dy, x, weight):
    return lambda: ops.dense_backward(dy, x, weight, precision=options["precision"])


def _pool(function):
    def make(place, options, x):
        y = function(x, options["window"], stride=options["stride"])
        return lambda: function(x, options["window"], stride=options["stride"], out=y)

    return make


def _max_pool2d_backward(place, options, dy, x):
    window, stride, dx = options["window"], options["stride"], place.empty(x.shape)
    return lambda: ops.max_pool2d_backward(dy, x, window, stride=stride, out=dx)


def _avg_pool2d_backward(place, options, dy):
    window, stride = options["window"], options["stride"]
    dx = place.empty((dy.shape[0], *options["input"]))
    return lambda: ops.avg_pool2d_backward(dy, dx.shape, window, stride=stride, out=dx)


def _elementwise(function):
    """Of one array or two."""

    def make(place, options, **arrays):
        inputs = list(arrays.values())
        y = place.empty(inputs[0].shape)
        return lambda: function(*inputs, out=y)

    return make


def _mean_of_pixels(place, options, x):
    y = ops.mean(x, axis=(1, 2))
    return lambda: ops.mean(x, axis=(1, 2), out=y)


def _norm(function):
    def make(place, options, x, gamma, beta):
        groups = {name: options[name] for name in ("groups",) if name in options}
        y = place.empty(x.shape)
        return lambda: function(x, gamma, beta, **groups, out=y)

    return make


def _norm_backward(function):
    def make(place, options, dy, x, gamma, beta):
        groups = {name: options[name] for name in ("groups",) if name in options}
        return lambda: function(dy, x, gamma, **groups)

    return make


def _softmax_cross_entropy(place, options, logits, labels):
    return lambda: ops.softmax_cross_entropy(logits, labels, return_grad=True)


def _batch_norm(place, options, x, gamma, beta):
    mean, variance = place.zeros(gamma.shape), place.put(np.ones(gamma.shape, np.float32))
    y = place.empty(x.shape)
    return lambda: ops.batch_norm(x, gamma, beta, mean, variance, training=True, out=y)


def _batch_norm_backward(place, options, dy, x, gamma, beta):
    return lambda: ops.batch_norm_backward(dy, x, gamma, training=True)


def _dropout(place, options, **arrays):
    """Forward or gradient, which draws the same numbers again."""
    (x,) = arrays.values()
    y, host = place.empty(x.shape), x.numpy() if isinstance(place, _Gpu) else x

    def run():
        return ops.dropout(x, DROPOUT_RATE, seed=1, out=y)

    run.show = lambda result: checked_dropout(result, host)
    return run


def _upsample2d(place, options, x):
    y = ops.upsample2d(x, 2, interpolation=options["interpolation"])
    return lambda: ops.upsample2d(x, 2, interpolation=options["interpolation"], out=y)


def _upsample2d_backward(place, options, dy):
    dx = place.empty((dy.shape[0], *options["input"]))
    return lambda: ops.upsample2d_backward(dy, 2, interpolation=options["interpolation"], out=dx)


def _attention(place, options, q, k, v):
    y, heads = place.empty(q.shape), options["heads"]
    return lambda: ops.attention(q, k, v, heads=heads, out=y)


def _attention_backward(place, options, dy, q, k, v):
    heads = options["heads"]
    _, kept = ops.attention(q, k, v, heads=heads, keep=True)
    return lambda: ops.attention_backward(dy, q, k, v, heads=heads, kept=kept)


def _lstm(place, options, x, kernel, recurrent_kernel, bias):
    arrays = (x, kernel, recurrent_kernel, bias)
    y = ops.lstm(*arrays, return_sequences=True)
    return lambda: ops.lstm(*arrays, return_sequences=True, out=y)


def _lstm_backward(place, options, dy, x, kernel, recurrent_kernel, bias):
    arrays = (x, kernel, recurrent_kernel, bias)
    _, kept = ops.lstm(*arrays, return_sequences=True, keep=True)
    return lambda: ops.lstm_backward(dy, *arrays, return_sequences=True, kept=kept)


def _optimizer(spec, slots):
    def make(place, options, p, g):
        state, steps = [place.zeros(p.shape) for _ in range(slots)], itertools.count(1)

        def run():
            _core.optimizer_update(spec, 1e-3, next(steps), p, g, state)
            return p

        return run

    return make


_OPS = {
    "conv2d": _conv2d,
    "conv2d_backward_input": _conv2d_backward_input,
    "conv2d_backward_weight": _conv2d_backward_weight,
    "max_pool2d": _pool(ops.max_pool2d),
    "max_pool2d_backward": _max_pool2d_backward,
    "avg_pool2d": _pool(ops.avg_pool2d),
    "avg_pool2d_backward": _avg_pool2d_backward,
    "relu": _elementwise(ops.relu),
    "dense": _dense,
    "dense_backward": _dense_backward,
    "mean_of_pixels": _mean_of_pixels,
    "relu_backward": _elementwise(ops.relu_backward),
    "gelu": _elementwise(ops.gelu),
    "gelu_backward": _elementwise(ops.gelu_backward),
    "add": _elementwise(ops.add),
    "softmax": _elementwise(ops.softmax),
    "softmax_backward": _elementwise(ops.softmax_backward),
    "dropout": _dropout,
    "dropout_backward": _dropout,
    "upsample2d": _upsample2d,
    "upsample2d_backward": _upsample2d_backward,
    "attention": _attention,
    "attention_backward": _attention_backward,
    "lstm": _lstm,
    "lstm_backward": _lstm_backward,
    "softmax_cross_entropy": _softmax_cross_entropy,
    "batch_norm": _batch_norm,
    "batch_norm_backward": _batch_norm_backward,
    "layer_norm": _norm(ops.layer_norm),
    "layer_norm_backward": _norm_backward(ops.layer_norm_backward),
    "group_norm": _norm(ops.group_norm),
    "group_norm_backward": _norm_backward(ops.group_norm_backward),
    "sgd": _optimizer({"kind": "sgd", "momentum": 0.9}, 1),
    "rmsprop": _optimizer({"kind": "rmsprop"}, 1),
    "adam": _optimizer({"kind": "adam"}, 2),
}
