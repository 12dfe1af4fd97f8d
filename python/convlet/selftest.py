"""Small problems for each family of kernels on a device, held against the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from convlet import _core, ops

# The largest difference that is not an error, as a share of the largest value. The CPU and a GPU
# add in different orders and round exp and the like differently; a wrong index is off by all of it.
# Rounded factors: four times what a float64 model of _train with such factors differs by.
TOLERANCE = {"float32": 1e-4, "tf32": 3e-4, "bfloat16": 3e-3}


def failures(device: str, precisions: Sequence[str] = tuple(TOLERANCE)) -> list[str]:
    """A line for each family whose values on the device are not the CPU's; none when all is well.

    The problems are small; nobody has timed it on a GPU. A kernel that fails altogether gives a
    line too.
    """
    lines = []
    for name, family in FAMILIES.items():
        lines += _compare(name, device, TOLERANCE["float32"], lambda f=family: _ops(f, device))
    for precision in precisions:
        smooth = precision != "float32"
        lines += _compare(
            f"training in {precision}",
            device,
            TOLERANCE[precision],
            lambda p=precision, s=smooth: (_train("cpu", "float32", s), _train(device, p, s)),
        )
    return lines


def _compare(
    name: str, device: str, tolerance: float, run: Callable[[], tuple[Any, Any]]
) -> list[str]:
    try:
        expected, got = run()
    except ValueError as error:
        return [f"{name}: {error}"]
    for want, have in zip(expected, got, strict=True):
        scale = max(float(np.abs(want).max(initial=0)), 1e-30)
        error = float(np.abs(want - have).max(initial=0)) / scale
        if not error <= tolerance:
            return [f"{name}: differs from the CPU by {error:.1g} of the largest value on {device}"]
    return []


@contextmanager
def _op_device(device: str) -> Iterator[None]:
    before = _core.op_device()
    _core.set_op_device(device)
    try:
        yield
    finally:
        _core.set_op_device(before)


Values = Callable[..., np.ndarray]
Family = Callable[[Values], Any]


def _ops(family: Family, device: str) -> tuple[list[Any], list[Any]]:
    results = []
    for target in ("cpu", device):
        rng = np.random.default_rng(0)
        with _op_device(target):
            y = family(lambda *shape, rng=rng: rng.standard_normal(shape).astype(np.float32))
            results.append([np.array(part) for part in y if part is not None])
    return results[0], results[1]


def _conv2d(f: Values) -> Any:
    x, w, dy = f(2, 9, 11, 12), f(3, 3, 12, 24), f(2, 5, 6, 24)
    options: Any = {"stride": 2, "padding": 1}
    grouped, dw = f(3, 3, 1, 12), f(2, 9, 11, 12)
    return (
        ops.conv2d(x, w, f(24), activation="relu", **options),
        ops.conv2d_backward_input(dy, w, x.shape, **options),
        ops.conv2d_backward_weight(dy, x, 3, **options),
        ops.conv2d_backward_bias(dy),
        ops.conv2d(x, grouped, padding=1, groups=12),
        ops.conv2d_backward_input(dw, grouped, x.shape, padding=1, groups=12),
        ops.conv2d_backward_weight(dw, x, 3, padding=1, groups=12),
        ops.conv2d(x[..., :3], f(3, 3, 3, 16), padding=1),
        ops.conv2d_backward_weight(f(2, 9, 11, 16), x[..., :3], 3, padding=1),
    )


def _bfloat16_conv2d(f: Values) -> Any:
    """Of whole numbers, which bfloat16 holds: the sums are exact, and the CPU's in float32. With 64
    channels and more, by the kernels that CONVLET_SM90=1 turns on."""
    shapes = (2, 9, 11, 66), (3, 3, 66, 72), (2, 5, 6, 72)
    x, w, dy = (np.round(2 * f(*shape)) for shape in shapes)
    precision = "float32" if _core.op_device() == "cpu" else "bfloat16"
    options: Any = {"stride": 2, "padding": 1, "precision": precision}
    return (
        ops.conv2d(x, w, **options),
        ops.conv2d_backward_input(dy, w, x.shape, **options),
        ops.conv2d_backward_weight(dy, x, 3, **options),
    )


def _dense(f: Values) -> Any:
    x, w = f(19, 70), f(70, 33)
    return ops.dense(x, w, f(33)), *ops.dense_backward(f(19, 33), x, w), ops.matmul(x, w)


def _pooling(f: Values) -> Any:
    x, dy = f(2, 7, 9, 6), f(2, 3, 4, 6)
    return (
        ops.max_pool2d(x, 2),
        ops.max_pool2d_backward(dy, x, 2),
        ops.avg_pool2d(x, 2),
        ops.avg_pool2d_backward(dy, x.shape, 2),
        ops.upsample2d(x, 2),
        ops.upsample2d_backward(f(2, 14, 18, 6), 2),
    )


def _elementwise(f: Values) -> Any:
    x, dy = f(5, 67), f(5, 67)
    y = [getattr(ops, name)(x) for name in ("relu", "sigmoid", "tanh", "gelu", "silu", "softplus")]
    softmax = ops.softmax(x)
    return (
        *y,
        ops.gelu_backward(dy, x),
        ops.relu_backward(dy, y[0]),
        softmax,
        ops.softmax_backward(dy, softmax),
        ops.log_softmax(x),
        ops.exp(x),
        ops.multiply(x, f(67)),
        ops.dropout(x, 0.4, seed=3, step=1),
        ops.sum(x, axis=0),
        ops.mean(x, axis=1),
        ops.max(x, axis=1),
        ops.transpose(x),
    )


def _losses(f: Values) -> Any:
    x = f(11, 10)
    labels = np.arange(11) % 10
    return (
        *ops.softmax_cross_entropy(x, labels, return_grad=True),
        *ops.sigmoid_cross_entropy(x, np.abs(np.sign(f(11, 10))), return_grad=True),
        *ops.mean_squared_error(x, f(11, 10), return_grad=True),
    )


def _normalization(f: Values) -> Any:
    x, dy, gamma, beta = f(3, 4, 5, 12), f(3, 4, 5, 12), f(12), f(12)
    return (
        ops.batch_norm(x, gamma, beta, None, None, training=True),
        *ops.batch_norm_backward(dy, x, gamma, training=True),
        ops.layer_norm(x, gamma, beta),
        *ops.layer_norm_backward(dy, x, gamma),
        ops.group_norm(x, gamma, beta, groups=4),
        *ops.group_norm_backward(dy, x, gamma, groups=4),
    )


def _sequences(f: Values) -> Any:
    q, k, v, dy = f(2, 9, 16), f(2, 9, 16), f(2, 9, 16), f(2, 9, 16)
    x, kernel, recurrent, bias = f(2, 6, 5), f(5, 28), f(7, 28), f(28)
    return (
        ops.attention(q, k, v, heads=2, causal=True),
        *ops.attention_backward(dy, q, k, v, heads=2, causal=True),
        ops.lstm(x, kernel, recurrent, bias),
        *ops.lstm_backward(f(2, 7), x, kernel, recurrent, bias),
    )


FAMILIES: dict[str, Family] = {
    "convolution": _conv2d,
    "convolution in bfloat16": _bfloat16_conv2d,
    "dense and matmul": _dense,
    "pooling": _pooling,
    "elementwise and reductions": _elementwise,
    "losses": _losses,
    "normalization": _normalization,
    "attention and recurrent layers": _sequences,
}


SCALE = {"factor": 1 / 127.5, "offset": -1.0}  # of bytes


def _train(device: str, precision: str, smooth: bool) -> list[Any]:
    """Losses and parameters of four steps of a small network, two on images of bytes and two on
    others: the second of each is replayed where the device records steps.

    smooth: without ReLU and max pooling. With rounded factors they may decide otherwise than
    without, and carry the gradient elsewhere.
    """
    activation, pool = ("tanh", "avg_pool2d") if smooth else ("relu", "max_pool2d")
    rng = np.random.default_rng(1)
    graph = _core.Graph()
    x = graph.node("scale", "scale", [graph.input("x", (8, 8, 3))], [], SCALE)
    shapes = [(3, 3, 3, 16), (16,), (256, 10), (10,)]
    parameters = [graph.parameter(f"p{i}", shape) for i, shape in enumerate(shapes)]
    attributes = {"padding": "same", "activation": activation}
    y = graph.node("conv2d", "conv", [x], parameters[:2], attributes)
    y = graph.node(pool, "pool", [y], [], {"pool_size": [2, 2]})
    y = graph.node("reshape", "flat", [y], [], {"shape": [256]})
    graph.output(graph.node("dense", "dense", [y], parameters[2:]))
    state = _core.State(graph, device)
    for parameter, shape in zip(parameters, shapes, strict=True):
        state.set(parameter, (0.1 * rng.standard_normal(shape)).astype(np.float32))
    state.set_optimizer({"kind": "sgd", "momentum": 0.9})
    loss = {"kind": "softmax_cross_entropy", "integer_labels": True, "from_logits": True}
    plan = _core.Plan(graph, state, "train", 12, [loss], precision=precision)
    pixels = rng.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    losses = []
    for images in (pixels, pixels, pixels.astype(np.float32), pixels.astype(np.float32)):
        losses.append(plan.run([images], [np.arange(12) % 10], learning_rate=0.05))
    return [np.array(losses), *(state.get(parameter) for parameter in parameters)]
