"""The single ops that are measured: shapes of the reference networks, with their work and traffic.

A case makes its input arrays from a seed; the peers' modules ``<name>_ops`` compute it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from bench import networks

F32 = 4


@dataclass(frozen=True)
class Case:
    """``op`` is what a peer computes; ``shapes`` of its inputs for one image unless ``fixed``."""

    name: str
    op: str
    inputs: dict[str, tuple[int, ...]]  # with the batch in front
    fixed: dict[str, tuple[int, ...]]  # weights and the like
    output: tuple[int, ...]
    output_is_fixed: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    multiply_adds: float = 0.0  # for one image
    state: int = 0  # elements that are read and written besides: what an optimizer keeps
    models: tuple[str, ...] = ()  # the networks that it is a layer of

    def arrays(self, batch, seed=0):
        """{name: array}, normal; "labels" are classes, those that must be positive are."""
        rng = np.random.default_rng(seed)
        made = {}
        for name, shape in {
            **{k: (batch, *s) for k, s in self.inputs.items()},
            **self.fixed,
        }.items():
            if name == "labels":
                made[name] = rng.integers(0, self.options["classes"], shape)
            else:
                made[name] = rng.standard_normal(shape, np.float32)
            if name in ("kernel", "recurrent_kernel"):  # larger ones make a chaos of a recurrence
                made[name] /= np.float32(math.sqrt(shape[0]))
            if name in ("variance", "squares"):
                made[name] = np.abs(made[name]) + 0.1
        return made

    @property
    def has_precision(self):
        """Whether it may run in another precision than float32."""
        return self.multiply_adds > 0 and self.op.startswith(("conv2d", "dense"))

    def flops(self, batch):
        return 2.0 * self.multiply_adds * batch

    def bytes(self, batch):
        """What must be read and written at least once. Zero where arithmetic sets the pace."""
        if self.multiply_adds:
            return 0
        elements = sum(math.prod(s) for s in self.inputs.values()) * batch
        elements += sum(math.prod(s) for s in self.fixed.values())
        elements += math.prod(self.output) * (1 if self.output_is_fixed else batch)
        return F32 * (elements + 2 * self.state)


def layers():
    """{(H, C, K, window, stride, pad): names of the networks} of their convolutions."""
    found = {}
    for name, network in networks.NETWORKS.items():
        for step, (size, _, channels), _ in _convolutions_of(network):
            found.setdefault((size, channels, *step[1:5]), {})[name] = None
    return {layer: tuple(names) for layer, names in found.items()}


def _convolutions_of(network):
    walk = networks.walk(network.steps, network.input_shape)
    return (item for item in walk if item[0][0] == "conv")


def _convolutions():
    for (size, c, k, window, stride, pad), models in layers().items():
        out = (size + 2 * pad - window) // stride + 1
        x, w, y = (size, size, c), (window, window, c, k), (out, out, k)
        options = {"stride": stride, "padding": pad}
        work = float(out * out * k * window * window * c)
        label = f"{models[0]} {size}x{size}x{c} {window}x{window}/{stride} -> {k}"
        for case in _passes(label, x, w, y, options, work, c > 3):
            yield replace(case, models=models)
    for size, c, stride in ((56, 64, 1), (28, 256, 1), (56, 64, 2), (56, 144, 2)):
        x, y = (size, size, c), (size // stride, size // stride, c)
        options = {"stride": stride, "padding": 1, "groups": c}
        # Depthwise: memory sets the pace.
        yield from _passes(f"depthwise {size}x{size}x{c} 3x3/{stride}", x, (3, 3, 1, c), y, options)


def _passes(label, x, w, y, options, work=0.0, input_too=True):
    """Forward and gradients; the first layer of a network needs none of its input."""
    yield Case(f"conv2d {label}", "conv2d", {"x": x}, {"w": w}, y, False, options, work)
    yield Case(
        f"conv2d_backward_weight {label}",
        "conv2d_backward_weight",
        {"dy": y, "x": x},
        {},
        w,
        True,
        options | {"window": w[0]},
        work,
    )
    if input_too:
        yield Case(
            f"conv2d_backward_input {label}",
            "conv2d_backward_input",
            {"dy": y},
            {"w": w},
            x,
            False,
            options | {"input": x},
            work,
        )


def _dense():
    inputs, units = 2304, 128
    work, w = float(inputs * units), {"weight": (inputs, units)}
    label, models = f"M3 {inputs} -> {units}", ("M3",)
    yield Case(
        f"dense {label}",
        "dense",
        {"x": (inputs,)},
        w,
        (units,),
        multiply_adds=work,
        models=models,
    )
    yield Case(
        f"dense_backward {label}",
        "dense_backward",
        {"dy": (units,), "x": (inputs,)},
        w,
        (inputs,),
        multiply_adds=2 * work,
        models=models,
    )


def _pools():
    for size, c, window, stride in ((30, 32, 2, 2), (13, 64, 2, 2), (112, 64, 3, 2)):
        out = (size - window) // stride + 1
        x, y = (size, size, c), (out, out, c)
        options = {"window": window, "stride": stride}
        label = f"{size}x{size}x{c} {window}x{window}/{stride}"
        for kind in ("max_pool2d", "avg_pool2d"):
            needs = {"dy": y, "x": x} if kind == "max_pool2d" else {"dy": y}
            yield Case(f"{kind} {label}", kind, {"x": x}, {}, y, False, options)
            backward = options | {"input": x}
            yield Case(
                f"{kind}_backward {label}", f"{kind}_backward", needs, {}, x, False, backward
            )
    x = (7, 7, 2048)
    yield Case("mean of pixels 7x7x2048", "mean_of_pixels", {"x": x}, {}, (2048,))


def _others():
    x = (32, 32, 64)
    yield Case("relu 32x32x64", "relu", {"x": x}, {}, x)
    yield Case("relu_backward 32x32x64", "relu_backward", {"dy": x, "y": x}, {}, x)
    yield Case("gelu 32x32x64", "gelu", {"x": x}, {}, x)
    yield Case("gelu_backward 32x32x64", "gelu_backward", {"dy": x, "x": x}, {}, x)
    yield Case("add 32x32x64", "add", {"a": x, "b": x}, {}, x)
    row = (1000,)
    yield Case("softmax 1000 classes", "softmax", {"x": row}, {}, row)
    yield Case("softmax_backward 1000 classes", "softmax_backward", {"dy": row, "y": row}, {}, row)
    for classes in (10, 1000):
        logits = {"logits": (classes,), "labels": ()}
        yield Case(
            f"softmax_cross_entropy {classes} classes, with gradient",
            "softmax_cross_entropy",
            logits,
            {},
            (classes,),
            False,
            {"classes": classes},
        )
    channels = {"gamma": (64,), "beta": (64,)}
    yield Case("batch_norm training 32x32x64", "batch_norm", {"x": x}, channels, x)
    yield Case(
        "batch_norm_backward 32x32x64", "batch_norm_backward", {"dy": x, "x": x}, channels, x
    )
    norms = (("layer_norm", (196, 384), {}), ("group_norm", x, {"groups": 32}))
    for kind, shape, options in norms:
        label = "x".join(map(str, shape))
        affine = {"gamma": shape[-1:], "beta": shape[-1:]}
        yield Case(f"{kind} {label}", kind, {"x": shape}, affine, shape, False, options)
        backward, needs = f"{kind}_backward", {"dy": shape, "x": shape}
        yield Case(f"{backward} {label}", backward, needs, affine, shape, False, options)


def _optimizers():
    count = 4_000_000
    for name, slots in (("sgd", 1), ("rmsprop", 1), ("adam", 2)):
        arrays = {"p": (count,), "g": (count,)}
        title = f"{name} {count:,} weights"
        yield Case(title, name, {}, arrays, (count,), True, state=slots * count)


def _sequences():
    """A layer of a small vision transformer, and the rows of an image as a sequence."""
    x = (196, 384)
    work, options = 2.0 * 196 * 196 * 384, {"heads": 6}
    label = "196x384, 6 heads"
    qkv = {"q": x, "k": x, "v": x}
    yield Case(f"attention {label}", "attention", qkv, {}, x, False, options, work)
    # Scores are made again: five products of the size of the forward's two.
    yield Case(
        f"attention_backward {label}",
        "attention_backward",
        {"dy": x, **qkv},
        {},
        x,
        False,
        options,
        2.5 * work,
    )
    steps, inputs, units = 28, 28, 128
    work = float(steps * (inputs + units) * 4 * units)
    x, y = (steps, inputs), (steps, units)
    weights = {
        "kernel": (inputs, 4 * units),
        "recurrent_kernel": (units, 4 * units),
        "bias": (4 * units,),
    }
    label = f"{steps}x{inputs} -> {units}"
    yield Case(f"lstm {label}", "lstm", {"x": x}, weights, y, multiply_adds=work)
    yield Case(
        f"lstm_backward {label}",
        "lstm_backward",
        {"dy": y, "x": x},
        weights,
        x,
        multiply_adds=2 * work,
    )


def _of_pixels():
    x, large = (32, 32, 64), (64, 64, 64)
    yield Case("dropout 32x32x64", "dropout", {"x": x}, {}, x)
    yield Case("dropout_backward 32x32x64", "dropout_backward", {"dy": x}, {}, x)
    for how in ("nearest", "bilinear"):
        options, label = {"interpolation": how, "input": x}, f"32x32x64 by 2, {how}"
        yield Case(f"upsample2d {label}", "upsample2d", {"x": x}, {}, large, False, options)
        yield Case(
            f"upsample2d_backward {label}",
            "upsample2d_backward",
            {"dy": large},
            {},
            x,
            False,
            options,
        )


CASES = [
    *(*_convolutions(), *_dense(), *_pools(), *_others()),
    *(*_of_pixels(), *_sequences(), *_optimizers()),
]
BY_NAME = {case.name: case for case in CASES}
