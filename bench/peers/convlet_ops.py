"""The single ops of convlet, with their results written into memory that is there already."""

from __future__ import annotations

import itertools

import numpy as np
from bench.peers.convlet import versions

from convlet import _core, ops

__all__ = ["SETTINGS", "op", "versions"]

SETTINGS = {"ops": {"default": {}}}


def op(setting, case, arrays):
    """A function that computes the case and returns its result."""
    return _OPS[case.op](case.options, **arrays)


def _geometry(options):
    return {"stride": options["stride"], "padding": options["padding"]}


def _conv2d(options, x, w):
    y = ops.conv2d(x, w, **_geometry(options))
    return lambda: ops.conv2d(x, w, **_geometry(options), out=y)


def _conv2d_backward_input(options, dy, w):
    dx = np.empty((len(dy), *options["input"]), np.float32)
    return lambda: ops.conv2d_backward_input(dy, w, dx.shape, **_geometry(options), out=dx)


def _conv2d_backward_weight(options, dy, x):
    size = (options["window"], options["window"])
    dw = ops.conv2d_backward_weight(dy, x, size, **_geometry(options))
    return lambda: ops.conv2d_backward_weight(dy, x, size, **_geometry(options), out=dw)


def _pool(function):
    def make(options, x):
        y = function(x, options["window"], stride=options["stride"])
        return lambda: function(x, options["window"], stride=options["stride"], out=y)

    return make


def _max_pool2d_backward(options, dy, x):
    window, stride, dx = options["window"], options["stride"], np.empty_like(x)
    return lambda: ops.max_pool2d_backward(dy, x, window, stride=stride, out=dx)


def _avg_pool2d_backward(options, dy):
    window, stride = options["window"], options["stride"]
    dx = np.empty((len(dy), *options["input"]), np.float32)
    return lambda: ops.avg_pool2d_backward(dy, dx.shape, window, stride=stride, out=dx)


def _elementwise(function):
    def make(options, x):
        y = np.empty_like(x)
        return lambda: function(x, out=y)

    return make


def _softmax_cross_entropy(options, logits, labels):
    return lambda: ops.softmax_cross_entropy(logits, labels, return_grad=True)[1]


def _batch_norm(options, x, gamma, beta):
    mean, variance = np.zeros_like(gamma), np.ones_like(gamma)
    y = np.empty_like(x)
    return lambda: ops.batch_norm(x, gamma, beta, mean, variance, training=True, out=y)


def _batch_norm_backward(options, dy, x, gamma, beta):
    dx = np.empty_like(x)
    mean = x.mean((0, 1, 2), dtype=np.float64).astype(np.float32)
    variance = x.var((0, 1, 2), dtype=np.float64).astype(np.float32)
    return lambda: ops.batch_norm_backward(dy, x, gamma, mean, variance, training=True, out=dx)


def _optimizer(spec, slots):
    def make(options, p, g):
        state, steps = [np.zeros_like(p) for _ in range(slots)], itertools.count(1)

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
    "gelu": _elementwise(ops.gelu),
    "softmax_cross_entropy": _softmax_cross_entropy,
    "batch_norm": _batch_norm,
    "batch_norm_backward": _batch_norm_backward,
    "sgd": _optimizer({"kind": "sgd", "momentum": 0.9}, 1),
    "adam": _optimizer({"kind": "adam"}, 2),
}
