"""VGG: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
arXiv:1409.1556."""

from typing import Any

from convlet.applications import blocks
from convlet.applications.start import Scale, Shape, first_layers
from convlet.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D, ReLU
from convlet.models import Sequential

# The filters of the convolutions; a max pooling stands behind each group.
VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg11(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    batch_norm: bool = False,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """VGG-11 (configuration A of the paper): 132.9 M parameters at 224x224.

    batch_norm: normalize behind each convolution, as torchvision's vgg11_bn.
    The first dense layer reads all of the last feature map (7x7 at 224x224), so its size depends on
    that of the image.
    """
    layers = _vgg("vgg11", VGG11, input_shape, classes, scale, batch_norm)
    return Sequential(layers + _classifier(classes, classifier_activation), name="vgg11")


def vgg16(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    batch_norm: bool = False,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """VGG-16 (configuration D of the paper): 138.4 M parameters at 224x224; as `vgg11`."""
    layers = _vgg("vgg16", VGG16, input_shape, classes, scale, batch_norm)
    return Sequential(layers + _classifier(classes, classifier_activation), name="vgg16")


def _vgg(
    name: str,
    groups: tuple[tuple[int, ...], ...],
    input_shape: Shape,
    classes: int,
    scale: Scale,
    batch_norm: bool,
) -> list[Any]:
    """The convolutions and poolings."""
    layers = first_layers(name, input_shape, classes, scale)
    position = 0  # torchvision counts every layer of "features", activations too
    for group in groups:
        for filters in group:
            layers.append(_conv(filters, f"features.{position}", None if batch_norm else "relu"))
            if batch_norm:
                layers += [blocks.batch_norm(f"features.{position + 1}"), ReLU()]
            position += 3 if batch_norm else 2
        layers.append(MaxPooling2D())
        position += 1
    return layers


def _conv(filters: int, name: str, activation: str | None) -> Conv2D:
    return Conv2D(
        filters,
        3,
        padding="same",
        activation=activation,
        kernel_initializer="he_normal",
        name=name,
    )


def _classifier(classes: int, activation: str | None) -> list[Any]:
    return [
        Flatten(),
        Dense(4096, activation="relu", kernel_initializer="he_normal", name="classifier.0"),
        Dropout(0.5),
        Dense(4096, activation="relu", kernel_initializer="he_normal", name="classifier.3"),
        Dropout(0.5),
        Dense(classes, activation=activation, name="classifier.6"),
    ]
