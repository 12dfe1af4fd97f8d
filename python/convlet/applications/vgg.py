"""VGG: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
arXiv:1409.1556."""

from typing import Any

from convlet.applications.start import Shape, first_layers
from convlet.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from convlet.models import Sequential

# The filters of the convolutions; a max pooling stands behind each group.
VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg11(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    scale: float = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """VGG-11 (configuration A of the paper): 132.9 M parameters at 224x224.

    The first dense layer reads all of the last feature map (7x7 at 224x224), so its size depends on
    that of the image.
    """
    return _vgg("vgg11", VGG11, input_shape, classes, scale, classifier_activation)


def vgg16(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    scale: float = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """VGG-16 (configuration D of the paper): 138.4 M parameters at 224x224; as `vgg11`."""
    return _vgg("vgg16", VGG16, input_shape, classes, scale, classifier_activation)


def _vgg(
    name: str,
    groups: tuple[tuple[int, ...], ...],
    input_shape: Shape,
    classes: int,
    scale: float,
    classifier_activation: str | None,
) -> Sequential:
    layers: list[Any] = first_layers(name, input_shape, classes, scale)
    position = 0  # torchvision counts every layer of "features", activations too
    for group in groups:
        for filters in group:
            layers.append(
                Conv2D(
                    filters,
                    3,
                    padding="same",
                    activation="relu",
                    kernel_initializer="he_normal",
                    name=f"features.{position}",
                )
            )
            position += 2
        layers.append(MaxPooling2D())
        position += 1
    layers += [
        Flatten(),
        Dense(4096, activation="relu", kernel_initializer="he_normal", name="classifier.0"),
        Dropout(0.5),
        Dense(4096, activation="relu", kernel_initializer="he_normal", name="classifier.3"),
        Dropout(0.5),
        Dense(classes, activation=classifier_activation, name="classifier.6"),
    ]
    return Sequential(layers, name=name)
