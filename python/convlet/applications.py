"""Ready-made networks, each a short function that can be read and copied.

All take ``input_shape`` (H, W, C) and the number of ``classes``, and end in a softmax. ``scale`` is
multiplied onto the input first: 1/255 for pixels 0..255, 1 (no such layer) for data that is scaled.
"""

from __future__ import annotations

from typing import Any

from convlet.layers import Conv2D, Dense, Dropout, Flatten, Input, MaxPooling2D, Rescaling
from convlet.models import Sequential

Shape = tuple[int, int, int]


def small_cnn(input_shape: Shape, classes: int, *, scale: float = 1.0) -> Sequential:
    """The command line's default: three or more 3x3 convolutions, made for few images.

    Every doubling of the side above 16 pixels adds a pooling and a convolution, so the classifier
    sees at most 8x8x64 features whatever the size of the image.
    """
    layers = [*_input(input_shape, scale), _conv3x3(32)]
    side = min(input_shape[:2])
    while side > 16:
        layers += [MaxPooling2D(), _conv3x3(64)]
        side //= 2
    layers += [_conv3x3(64)]
    if side > 1:
        layers += [MaxPooling2D()]
    layers += [Dropout(0.2), _conv3x3(64), Flatten(), Dropout(0.2)]
    return Sequential([*layers, Dense(classes, activation="softmax")], name="small_cnn")


def cifar_cnn(
    input_shape: Shape = (32, 32, 3), classes: int = 10, *, scale: float = 1.0
) -> Sequential:
    """The network of the usual CIFAR-10 tutorials: 0.12 M parameters."""
    return Sequential(_three_convolutions(input_shape, classes, scale), name="cifar_cnn")


def mnist_cnn(
    input_shape: Shape = (28, 28, 1), classes: int = 10, *, scale: float = 1.0
) -> Sequential:
    """`cifar_cnn` on one channel of 28x28: 0.09 M parameters."""
    return Sequential(_three_convolutions(input_shape, classes, scale), name="mnist_cnn")


def cifar_small(
    input_shape: Shape = (32, 32, 3), classes: int = 10, *, scale: float = 1.0
) -> Sequential:
    """Two convolutions and a wide dense layer: 0.32 M parameters."""
    return Sequential(_two_convolutions(input_shape, classes, scale), name="cifar_small")


def img224(
    input_shape: Shape = (224, 224, 3), classes: int = 10, *, scale: float = 1.0
) -> Sequential:
    """`cifar_small` on 224x224: 23.9 M parameters, nearly all of them in the dense layer."""
    return Sequential(_two_convolutions(input_shape, classes, scale), name="img224")


def _three_convolutions(input_shape: Shape, classes: int, scale: float) -> list[Any]:
    return [
        *_input(input_shape, scale),
        Conv2D(32, 3, activation="relu"),
        MaxPooling2D(),
        Conv2D(64, 3, activation="relu"),
        MaxPooling2D(),
        Conv2D(64, 3, activation="relu"),
        Flatten(),
        Dense(64, activation="relu"),
        Dense(classes, activation="softmax"),
    ]


def _two_convolutions(input_shape: Shape, classes: int, scale: float) -> list[Any]:
    return [
        *_input(input_shape, scale),
        Conv2D(32, 3, activation="relu"),
        MaxPooling2D(),
        Conv2D(64, 3, activation="relu"),
        MaxPooling2D(),
        Flatten(),
        Dense(128, activation="relu"),
        Dense(classes, activation="softmax"),
    ]


def _conv3x3(filters: int) -> Conv2D:
    return Conv2D(filters, 3, padding="same", activation="relu")


def _input(input_shape: Shape, scale: float) -> list[Any]:
    return [Input(input_shape)] + ([Rescaling(scale)] if scale != 1.0 else [])
