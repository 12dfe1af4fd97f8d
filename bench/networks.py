"""The reference networks M1 to M6, described once for every framework that is measured.

A network is a list of tuples, the name of a step and its arguments:

    ("conv", K, size, stride, pad, bias)   pad zeros on every side
    ("norm",)                              batch normalisation, epsilon 1e-5
    ("relu",)
    ("max_pool", size, stride, pad)
    ("average",)                           the mean over the image
    ("flatten",)                           in the order H, W, C
    ("dense", units)
    ("residual", main, shortcut)           relu(main(x) + shortcut(x)); both are lists of steps

All end in logits. Every framework builds from this list and takes the same weights, so that their
results can be compared before they are timed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Step = tuple[Any, ...]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """input_shape: (H, W, C) of an image. optimizer: "adam" or "sgd" with momentum 0.9."""

    name: str
    title: str
    input_shape: Shape
    classes: int
    steps: tuple[Step, ...]
    optimizer: str
    learning_rate: float


def _conv_relu(channels: int, bias: bool = True) -> list[Step]:
    return [("conv", channels, 3, 1, 0, bias), ("relu",)]


_POOL = ("max_pool", 2, 2, 0)


def _three_convolutions() -> tuple[Step, ...]:
    head = [("flatten",), ("dense", 64), ("relu",), ("dense", 10)]
    return (*_conv_relu(32), _POOL, *_conv_relu(64), _POOL, *_conv_relu(64), *head)


def _two_convolutions() -> tuple[Step, ...]:
    head = [("flatten",), ("dense", 128), ("relu",), ("dense", 10)]
    return (*_conv_relu(32), _POOL, *_conv_relu(64), _POOL, *head)


def _conv_norm(channels: int, size: int, stride: int) -> list[Step]:
    return [("conv", channels, size, stride, size // 2, False), ("norm",)]


def _residual(main: list[Step], inputs: int, outputs: int, stride: int) -> Step:
    changes = stride != 1 or inputs != outputs
    return ("residual", main, _conv_norm(outputs, 1, stride) if changes else [])


def _basic_block(inputs: int, channels: int, stride: int) -> Step:
    main = [*_conv_norm(channels, 3, stride), ("relu",), *_conv_norm(channels, 3, 1)]
    return _residual(main, inputs, channels, stride)


def _bottleneck(inputs: int, channels: int, stride: int) -> Step:
    main = [*_conv_norm(channels, 1, 1), ("relu",), *_conv_norm(channels, 3, stride), ("relu",)]
    return _residual([*main, *_conv_norm(4 * channels, 1, 1)], inputs, 4 * channels, stride)


def _resnet18_cifar() -> tuple[Step, ...]:
    steps, inputs = [*_conv_norm(64, 3, 1), ("relu",)], 64
    for stage, channels in enumerate((64, 128, 256, 512)):
        for block in range(2):
            steps.append(_basic_block(inputs, channels, 2 if stage and not block else 1))
            inputs = channels
    return (*steps, ("average",), ("dense", 10))


def _resnet50() -> tuple[Step, ...]:
    steps, inputs = [*_conv_norm(64, 7, 2), ("relu",), ("max_pool", 3, 2, 1)], 64
    for stage, (channels, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            steps.append(_bottleneck(inputs, channels, 2 if stage and not block else 1))
            inputs = 4 * channels
    return (*steps, ("average",), ("dense", 1000))


NETWORKS = {
    network.name: network
    for network in (
        Network("M1", "cifar-cnn", (32, 32, 3), 10, _three_convolutions(), "adam", 1e-3),
        Network("M2", "mnist-cnn", (28, 28, 1), 10, _three_convolutions(), "adam", 1e-3),
        Network("M3", "cifar-small", (32, 32, 3), 10, _two_convolutions(), "adam", 1e-3),
        Network("M4", "img224", (224, 224, 3), 10, _two_convolutions(), "adam", 1e-3),
        Network("M5", "resnet18-cifar", (32, 32, 3), 10, _resnet18_cifar(), "sgd", 0.01),
        Network("M6", "resnet50-224", (224, 224, 3), 1000, _resnet50(), "sgd", 0.01),
    )
}


def walk(steps: Any, shape: Shape) -> Iterator[tuple[Step, Shape, Shape]]:
    """Every step in the order in which it has weights, with the shapes of its input and output;
    those of a residual come before it: main, then shortcut."""
    for step in steps:
        if step[0] == "residual":
            inner = shape
            for part in (step[1], step[2]):
                inner = shape
                for item in walk(part, shape):
                    yield item
                    inner = item[2]
                if part is step[1]:
                    output = inner
            yield step, shape, output
            shape = output
        else:
            output = output_shape(step, shape)
            yield step, shape, output
            shape = output


def output_shape(step: Step, shape: Shape) -> Shape:
    """Of a step that is not a residual."""
    kind = step[0]
    if kind == "conv":
        _, channels, size, stride, pad, _ = step
        return (*((n + 2 * pad - size) // stride + 1 for n in shape[:2]), channels)
    if kind == "max_pool":
        _, size, stride, pad = step
        return (*((n + 2 * pad - size) // stride + 1 for n in shape[:2]), shape[2])
    if kind == "average":
        return shape[2:]
    if kind == "flatten":
        return (math.prod(shape),)
    if kind == "dense":
        return (step[1],)
    return shape


def weights(network: Network, seed: int = 0) -> list[NDArray[np.float32]]:
    """Random weights in the order of walk(): conv kernel (R,S,C,K) and bias (K,), gamma and beta
    (C,), dense kernel (I,O) and bias (O,). Variance 2 / fan-in; the last gamma of a residual is
    small, so that deep networks stay in range."""
    rng = np.random.default_rng(seed)
    arrays: list[NDArray[Any]] = []
    for step, before, _ in walk(network.steps, network.input_shape):
        if step[0] == "conv":
            _, channels, size, _, _, bias = step
            shape = (size, size, before[2], channels)
            arrays.append(rng.normal(0, math.sqrt(2 / math.prod(shape[:3])), shape))
            if bias:
                arrays.append(rng.normal(0, 0.1, channels))
        elif step[0] == "norm":
            arrays += [rng.uniform(0.5, 1.5, before[-1]), rng.normal(0, 0.1, before[-1])]
        elif step[0] == "dense":
            arrays.append(rng.normal(0, math.sqrt(1 / before[0]), (before[0], step[1])))
            arrays.append(rng.normal(0, 0.1, step[1]))
        elif step[0] == "residual":
            arrays[-2 if not step[2] else -2 - 3] *= 0.25
    return [array.astype(np.float32) for array in arrays]


def batch(network: Network, count: int, seed: int = 1) -> tuple[NDArray[Any], NDArray[Any]]:
    """Random images (count, H, W, C) float32 and labels (count,) int64."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((count, *network.input_shape), np.float32)
    return images, rng.integers(0, network.classes, count)


def flops(network: Network, train: bool) -> float:
    """Float operations for one image, of convolutions and dense layers: 2 for each multiply-add;
    training adds the gradients of the weights and, but for the first layer, of the inputs."""
    total, first = 0.0, True
    for step, before, after in walk(network.steps, network.input_shape):
        if step[0] == "conv":
            one = 2.0 * math.prod(after) * step[2] ** 2 * before[2]
        elif step[0] == "dense":
            one = 2.0 * before[0] * step[1]
        else:
            continue
        total += one * ((2 if first else 3) if train else 1)
        first = False
    return total
