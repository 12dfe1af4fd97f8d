"""AlexNet on a single device: Krizhevsky, One weird trick for parallelizing convolutional neural
networks, arXiv:1404.5997."""

from convlet.applications.start import Scale, Shape, first_layers
from convlet.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from convlet.models import Sequential


def alexnet(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """torchvision's alexnet: 61.1 M parameters at 224x224.

    The first dense layer reads all of the last feature map (6x6 at 224x224), so its size depends on
    that of the image.
    """
    he = "he_normal"
    return Sequential(
        [
            *first_layers("alexnet", input_shape, classes, scale),
            _conv("features.0", 64, 11, strides=4, padding=2),
            MaxPooling2D(3, 2),
            _conv("features.3", 192, 5),
            MaxPooling2D(3, 2),
            _conv("features.6", 384, 3),
            _conv("features.8", 256, 3),
            _conv("features.10", 256, 3),
            MaxPooling2D(3, 2),
            Flatten(),
            Dropout(0.5),
            Dense(4096, activation="relu", kernel_initializer=he, name="classifier.1"),
            Dropout(0.5),
            Dense(4096, activation="relu", kernel_initializer=he, name="classifier.4"),
            Dense(classes, activation=classifier_activation, name="classifier.6"),
        ],
        name="alexnet",
    )


def _conv(
    name: str, filters: int, size: int, strides: int = 1, padding: int | str = "same"
) -> Conv2D:
    return Conv2D(
        filters,
        size,
        strides,
        padding,
        activation="relu",
        kernel_initializer="he_normal",
        name=name,
    )
