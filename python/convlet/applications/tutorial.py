"""The small networks of tutorials, and the command line's default."""

from __future__ import annotations

from typing import Any

from convlet.applications.start import Scale, Shape, first_layers
from convlet.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from convlet.models import Sequential


def small_cnn(
    input_shape: Shape,
    classes: int,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """The command line's default: three or more 3x3 convolutions, made for few images.

    Every doubling of the side above 16 pixels adds a pooling and a convolution, so the classifier
    sees at most 8x8x64 features whatever the size of the image.
    """
    layers = [*first_layers("small_cnn", input_shape, classes, scale), _conv3x3(32)]
    side = min(input_shape[:2])
    while side > 16:
        layers += [MaxPooling2D(), _conv3x3(64)]
        side //= 2
    layers += [_conv3x3(64)]
    if side > 1:
        layers += [MaxPooling2D()]
    layers += [Dropout(0.2), _conv3x3(64), Flatten(), Dropout(0.2)]
    layers += [Dense(classes, activation=classifier_activation)]
    return Sequential(layers, name="small_cnn")


def cifar_cnn(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """The network of the usual CIFAR-10 tutorials: 0.12 M parameters."""
    first = first_layers("cifar_cnn", input_shape, classes, scale)
    return Sequential(first + _three_convolutions(classes, classifier_activation), name="cifar_cnn")


def mnist_cnn(
    input_shape: Shape = (28, 28, 1),
    classes: int = 10,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """`cifar_cnn` on one channel of 28x28: 0.09 M parameters."""
    first = first_layers("mnist_cnn", input_shape, classes, scale)
    return Sequential(first + _three_convolutions(classes, classifier_activation), name="mnist_cnn")


def cifar_small(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """Two convolutions and a wide dense layer: 0.32 M parameters."""
    first = first_layers("cifar_small", input_shape, classes, scale)
    return Sequential(first + _two_convolutions(classes, classifier_activation), name="cifar_small")


def img224(
    input_shape: Shape = (224, 224, 3),
    classes: int = 10,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """`cifar_small` on 224x224: 23.9 M parameters, nearly all of them in the dense layer."""
    first = first_layers("img224", input_shape, classes, scale)
    return Sequential(first + _two_convolutions(classes, classifier_activation), name="img224")


def _three_convolutions(classes: int, classifier_activation: str | None) -> list[Any]:
    return [
        Conv2D(32, 3, activation="relu"),
        MaxPooling2D(),
        Conv2D(64, 3, activation="relu"),
        MaxPooling2D(),
        Conv2D(64, 3, activation="relu"),
        Flatten(),
        Dense(64, activation="relu"),
        Dense(classes, activation=classifier_activation),
    ]


def _two_convolutions(classes: int, classifier_activation: str | None) -> list[Any]:
    return [
        Conv2D(32, 3, activation="relu"),
        MaxPooling2D(),
        Conv2D(64, 3, activation="relu"),
        MaxPooling2D(),
        Flatten(),
        Dense(128, activation="relu"),
        Dense(classes, activation=classifier_activation),
    ]


def _conv3x3(filters: int) -> Conv2D:
    return Conv2D(filters, 3, padding="same", activation="relu")
