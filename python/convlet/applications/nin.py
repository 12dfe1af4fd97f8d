"""Network in Network: Lin, Chen and Yan, arXiv:1312.4400."""

from convlet.applications.start import Scale, Shape, first_layers
from convlet.layers import (
    Activation,
    AveragePooling2D,
    Conv2D,
    Dropout,
    GlobalAveragePooling2D,
    MaxPooling2D,
)
from convlet.models import Sequential


def nin(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """The paper's network for CIFAR-10: 0.97 M parameters. There is no dense layer: the mean
    of each map of the last convolution, which has no ReLU here, is the logit of a class."""
    return Sequential(
        [
            *first_layers("nin", input_shape, classes, scale),
            *_block(192, 5, 160, 96),
            MaxPooling2D(3, 2, "same"),
            Dropout(0.5),
            *_block(192, 5, 192, 192),
            AveragePooling2D(3, 2, "same"),
            Dropout(0.5),
            *_block(192, 3, 192),
            Conv2D(classes, 1),
            GlobalAveragePooling2D(),
            Activation(classifier_activation),
        ],
        name="nin",
    )


def _block(filters: int, size: int, *mixed: int) -> list[Conv2D]:
    """A convolution, then a small dense network on every pixel: 1x1 convolutions."""
    return [_conv(filters, size), *(_conv(channels, 1) for channels in mixed)]


def _conv(filters: int, size: int) -> Conv2D:
    return Conv2D(filters, size, padding="same", activation="relu", kernel_initializer="he_normal")
