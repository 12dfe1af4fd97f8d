"""What the counters of bank conflicts and memory traffic are taken of: the kernels of every op and
of training steps, at sizes of real networks but for few images.

    python tests/simt/workloads.py LIBRARY

runs them on the emulated device and prints the counts by workload and kernel as JSON.

    python tests/simt/workloads.py cuda

runs them on a GPU, for compute-sanitizer; not the kernels of sm_90a.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import isa_cases
from convlet import _core, ops
from nets import SPARSE, Net
from simt.library import Emulator

Workload = tuple[str, Callable[[], object]]

LOGITS = SPARSE | {"from_logits": True}

rng = np.random.default_rng(0)


def f32(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def convolutions() -> Iterator[Workload]:
    """Layers of M1 to M6: N, H, W, C, K, window, options."""
    same, half = {"padding": 1}, {"padding": 1, "stride": 2}
    for name, (n, h, w, c, k, r), options in (
        ("1 to 32 channels", (1, 28, 28, 1, 32, 3), {}),
        ("3 to 32 channels", (1, 32, 32, 3, 32, 3), {}),
        ("3 to 64 channels, 7x7", (1, 32, 32, 3, 64, 7), {"padding": 3, "stride": 2}),
        ("32 to 64 channels", (2, 15, 15, 32, 64, 3), {}),
        ("64 to 128 channels, by 2", (2, 16, 16, 64, 128, 3), half),
        ("128 channels", (1, 8, 8, 128, 128, 3), same),
        ("256 to 64 channels, 1x1", (2, 14, 14, 256, 64, 1), {}),
        ("depthwise, 64 channels", (1, 14, 14, 64, 64, 3), same | {"groups": 64}),
    ):
        x, weight = f32(n, h, w, c), f32(r, r, c // options.get("groups", 1), k)
        bias = f32(k)
        dy = f32(*ops.conv2d(x, weight, **options).shape)
        yield f"conv2d, {name}", partial(ops.conv2d, x, weight, bias, activation="relu", **options)
        yield (
            f"conv2d_backward_input, {name}",
            partial(ops.conv2d_backward_input, dy, weight, x.shape, **options),
        )
        yield (
            f"conv2d_backward_weight, {name}",
            partial(ops.conv2d_backward_weight, dy, x, (r, r), **options),
        )
        yield f"conv2d_backward_bias, {name}", partial(ops.conv2d_backward_bias, dy)


def bytes_of_images() -> Iterator[Workload]:
    """First layers of a batch of bytes, scaled, forward and the gradient of the weights."""
    for name, shape, channels, window, pool in (
        ("1 to 32 channels", (28, 28, 1), 32, 3, []),
        ("3 to 32 channels", (32, 32, 3), 32, 3, []),
        ("3 to 32 channels, normalized", (32, 32, 3), 32, 3, []),
        ("3 to 32 channels, pooled", (32, 32, 3), 32, 3, [2, 2]),
        ("3 to 64 channels, 7x7", (32, 32, 3), 64, 7, []),
    ):
        net = Net()
        x = net.node("scale", net.input(*shape), factor=1 / 127.5, offset=-1.0)
        if name.endswith("normalized"):
            x = net.batch_norm(x, scale=False, center=False, training=False)
        x = net.conv2d(x, channels, size=window, padding="same", activation="relu")
        y = net.output(net.node("max_pool2d", x, pool_size=pool) if pool else x)
        plan = _core.Plan(net.graph, net.state(), "train", 1, [LOGITS])
        images = rng.integers(0, 256, (1, *shape)).astype(np.uint8)
        labels = rng.integers(0, channels, (1, *net.graph.shape(y)[:2]))
        yield f"conv2d of bytes, {name}", partial(plan.run, [images], [labels])
    net = Net()
    net.output(net.dense(net.flatten(net.input(32, 32, 3)), 10))
    plan = _core.Plan(net.graph, net.state(), "predict", 1)
    images = rng.integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    yield "dense of bytes, 3072 to 10", partial(plan.predict, [images])


def matrices() -> Iterator[Workload]:
    x, weight = f32(64, 1024), f32(1024, 64)
    yield "dense, 1024 to 64", partial(ops.dense, x, weight, f32(64))
    yield "dense, backward", partial(ops.dense_backward, f32(64, 64), x, weight)
    yield "dense, 64 to 10", partial(ops.dense, f32(64, 64), f32(64, 10), f32(10))
    for ta in (False, True):
        for tb in (False, True):
            a, b = (
                f32(2, 96, 64) if ta else f32(2, 64, 96),
                f32(2, 64, 96) if tb else f32(2, 96, 64),
            )
            transposed = {"transpose_a": ta, "transpose_b": tb}
            yield f"matmul, {ta}, {tb}", partial(ops.matmul, a, b, **transposed)


def images() -> Iterator[Workload]:
    x = f32(2, 30, 30, 32)
    for name, options in (("2x2", {}), ("3x3 by 2", {"pool_size": 3, "stride": 2, "padding": 1})):
        for kind in ("max", "avg"):
            forward = getattr(ops, f"{kind}_pool2d")
            backward = getattr(ops, f"{kind}_pool2d_backward")
            dy = f32(*forward(x, **options).shape)
            yield f"{kind}_pool2d, {name}", partial(forward, x, **options)
            given = x if kind == "max" else x.shape
            yield f"{kind}_pool2d_backward, {name}", partial(backward, dy, given, **options)
    for way in ("nearest", "bilinear"):
        options = {"size": 2, "interpolation": way}
        yield f"upsample2d, {way}", partial(ops.upsample2d, f32(1, 14, 14, 64), **options)
        dy = f32(1, 28, 28, 64)
        yield f"upsample2d_backward, {way}", partial(ops.upsample2d_backward, dy, **options)
    settings = {"rotation_low": -30.0, "rotation_high": 30.0, "zoom_h_low": 0.7, "zoom_w_low": 0.7}
    settings |= {"contrast_low": 0.5, "channel_shift_high": 9.0, "fill": "reflect"}
    for c in (1, 3, 4):
        x = rng.integers(0, 256, (2, 32, 32, c)).astype(np.uint8)
        draw = (x, None, None, 3, 5, 0, None, None, "float32", None)
        yield f"augment, {c} channels", partial(_core.augment, settings, *draw)
    settings = {"shift_h_choices": [-2.0, 1.0, 2.0], "shift_w_choices": [-1.0, 1.0]}
    yield "augment, shifts to choose from", partial(_core.augment, settings, *draw)


def normalizations() -> Iterator[Workload]:
    x, dy, gamma, beta = f32(2, 16, 16, 64), f32(2, 16, 16, 64), f32(64), f32(64)
    mean, var = f32(64), np.abs(f32(64)) + 1
    for training in (True, False):
        name, options = f"training={training}", {"training": training}
        yield (
            f"batch_norm, {name}",
            partial(ops.batch_norm, x, gamma, beta, mean.copy(), var.copy(), **options),
        )
        yield (
            f"batch_norm_backward, {name}",
            partial(ops.batch_norm_backward, dy, x, gamma, mean, var, **options),
        )
    yield "layer_norm", partial(ops.layer_norm, x, gamma, beta, axes=1)
    yield "layer_norm_backward", partial(ops.layer_norm_backward, dy, x, gamma, axes=1)
    for groups in (8, 64):
        yield f"group_norm, {groups}", partial(ops.group_norm, x, gamma, beta, groups=groups)
        backward = partial(ops.group_norm_backward, dy, x, gamma, groups=groups)
        yield f"group_norm_backward, {groups}", backward


def sequences() -> Iterator[Workload]:
    for causal in (False, True):
        q, k, v, dy = (f32(1, 96, 128) for _ in range(4))
        yield f"attention, causal={causal}", partial(ops.attention, q, k, v, heads=2, causal=causal)
        arguments = (q, k, v, 2, None, causal, 0.0, 7, 5, 2)
        yield "attention_backward", partial(_core.attention_backward, dy, *arguments)
    for cell, gates in (("simple_rnn", 1), ("lstm", 4), ("gru", 3)):
        x, kernel, recurrent = f32(32, 4, 32), f32(32, gates * 64), f32(64, gates * 64) / 8
        bias = f32(2, gates * 64) if cell == "gru" else f32(gates * 64)
        arguments = (x, kernel, recurrent, bias, True, False)
        yield cell, partial(_core.recurrent, cell, *arguments, None)
        yield (
            f"{cell}, backward",
            partial(_core.recurrent_backward, cell, f32(32, 4, 64), *arguments),
        )


def elementwise() -> Iterator[Workload]:
    x, y = f32(64, 1024), np.abs(f32(64, 1024)) + 0.1
    yield "relu", partial(ops.relu, x)
    yield "gelu", partial(ops.gelu, x)
    yield "gelu, backward", partial(ops.gelu_backward, x, y)
    yield "add", partial(ops.add, x, y)
    yield "add, to every row", partial(ops.add, x, f32(1024))
    yield "multiply, by channel", partial(ops.multiply, f32(2, 14, 14, 64), f32(2, 1, 1, 64))
    for side in (0, 1):
        yield "divide, backward", partial(_core.binary_backward, "divide", side, x, x, y)
    yield "where", partial(ops.where, x, x, y)
    yield "exp", partial(ops.exp, x)
    yield "exp, backward", partial(_core.unary_backward, "exp", x, x, None)
    yield "transpose", partial(ops.transpose, x)
    for axis in (0, 1, (0, 1)):
        for name in ("sum", "max"):
            yield f"{name}, {axis}", partial(getattr(ops, name), x, axis)
    for axis in (0, 1):
        yield f"max, backward, {axis}", partial(isa_cases._max_backward, x, axis)
    for noise in ("element", "channel", "sample"):
        x4 = f32(2, 14, 14, 64)
        yield f"dropout, {noise}", partial(_core.dropout, x4, 0.3, 7, 5, 2, noise, None)
    logits, labels = f32(64, 10), rng.integers(0, 10, 64)
    yield "softmax", partial(ops.softmax, f32(32, 1000))
    yield "softmax, backward", partial(ops.softmax_backward, logits, ops.softmax(logits))
    options = {"return_grad": True}
    yield "softmax_cross_entropy", partial(ops.softmax_cross_entropy, logits, labels, **options)
    targets = np.abs(logits) / 10
    yield "sigmoid_cross_entropy", partial(ops.sigmoid_cross_entropy, logits, targets, **options)
    yield "one_hot", partial(_core.one_hot, labels, 10, None)


def precisions() -> Iterator[Workload]:
    """What tf32, bfloat16 and the instructions of sm_90a do otherwise."""
    x, weight = f32(2, 15, 15, 64), f32(3, 3, 64, 64)
    dy = f32(*ops.conv2d(x, weight).shape)
    for name in ("tf32", "bfloat16", "bfloat16 on sm_90a"):
        for call in (
            partial(ops.conv2d, x, weight),
            partial(ops.conv2d_backward_input, dy, weight, x.shape),
            partial(ops.conv2d_backward_weight, dy, x, (3, 3)),
        ):
            yield f"{call.func.__name__}, 64 channels, {name}", partial(in_precision, name, call)


def training() -> Iterator[Workload]:
    for kind, options in (
        ("sgd", {"momentum": 0.9, "clip_norm": 1.0}),
        ("rmsprop", {"accumulation_steps": 2}),
        ("adam", {}),
    ):
        yield f"training, {kind}", partial(train, {"kind": kind, **options})


def train(optimizer: dict[str, object]) -> None:
    """Two steps on samples that lie on the device, with weights and a penalty, and the search for a
    value that is not finite. One convolution's pooling is by windows of 2x2, one's by 3x3."""
    net = Net()
    x = net.conv2d(net.input(32, 32, 3), 32, padding="same", activation="relu")
    x = net.node("max_pool2d", x, pool_size=[2, 2])
    x = net.conv2d(net.node("pad2d", x, pad=[1, 1, 1, 1]), 64, activation="relu")
    x = net.node("max_pool2d", x, pool_size=[3, 3])
    x = net.node("dropout", net.batch_norm(x), rate=0.25)
    top = net.node("slice", x, axis=0, begin=0, size=3)
    x = net.node("concatenate", net.flatten(x), net.flatten(top), axis=-1)
    weight = net.parameter(net.graph.shape(x)[-1], 10, l2=1e-4)
    net.output(net.node("dense", x, parameters=[weight]))
    state = net.state(optimizer)
    plan = _core.Plan(net.graph, state, "train", 4, [LOGITS])
    images = rng.integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    data = _core.Dataset(_core.op_device(), [images], [rng.integers(0, 10, 8)])
    data.set_order(np.arange(8)[::-1])
    data.set_weights(0, np.linspace(0.5, 1, 8, dtype=np.float32))
    for first in (0, 4):
        plan.finish(plan.start_from(data, first, 4, learning_rate=0.01))
    plan.first_non_finite()


def in_precision(name: str, call: Callable[[], object]) -> None:
    os.environ["CONVLET_SM90"] = str(int(name.endswith("sm_90a")))
    _core.set_op_precision(name.split()[0])
    call()
    _core.set_op_precision("float32")


def workloads() -> Iterator[Workload]:
    yield from convolutions()
    yield from bytes_of_images()
    yield from matrices()
    yield from precisions()
    yield from images()
    yield from normalizations()
    yield from sequences()
    yield from elementwise()
    yield from training()


def kernel_name(signature: str) -> str:
    """The name alone of a kernel with its return type and template arguments."""
    return re.search(r"(\w+)(<|$)", signature)[1]


def run_on(device: str) -> int:
    """How many have run there."""
    _core.set_op_device(device)
    functions = [function for name, function in workloads() if not name.endswith("sm_90a")]
    for function in functions:
        function()
    _core.wait(device)
    return len(functions)


def count(library: str) -> None:
    emulator = Emulator(Path(library))
    emulator.options(count=True)
    _core.load_device(library)
    _core.set_op_device("simt")
    counts = {}
    for name, function in workloads():
        emulator.counts()
        function()
        of_workload = counts.setdefault(name, {})
        for signature, numbers in emulator.counts().items():
            of_kernel = of_workload.setdefault(kernel_name(signature), dict.fromkeys(numbers, 0))
            for key, number in numbers.items():
                largest = key in ("threads", "shared")
                of_kernel[key] = max(of_kernel[key], number) if largest else of_kernel[key] + number
    for line in sorted(emulator.conflicts(), key=lambda line: -int(line.split()[0])):
        print(line[:150], file=sys.stderr)
    findings = emulator.findings()
    if findings:
        raise SystemExit(findings)
    print(json.dumps(counts))


if __name__ == "__main__":
    if sys.argv[1] == "cuda":
        print(f"{run_on('cuda')} workloads have run")
    else:
        count(sys.argv[1])
