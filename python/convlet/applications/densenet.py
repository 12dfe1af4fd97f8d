"""Densely connected networks: Huang, Liu, van der Maaten and Weinberger, Densely Connected
Convolutional Networks, arXiv:1608.06993."""

from convlet.applications.blocks import batch_norm, conv_bn, pooled_classifier
from convlet.applications.start import Scale, Shape, start
from convlet.layers import (
    AveragePooling2D,
    Concatenate,
    Conv2D,
    MaxPooling2D,
    ReLU,
    SymbolicTensor,
)
from convlet.models import Model

GROWTH = 32  # channels that each layer adds


def densenet121(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """DenseNet-121: every layer of a block reads what all layers before it made; 8.0 M
    parameters."""
    inputs, x = start("densenet121", input_shape, classes, scale)
    x = conv_bn(x, 64, 7, 2, names=("features.conv0", "features.norm0"))
    x = MaxPooling2D(3, 2, padding=1)(x)
    for block, count in enumerate((6, 12, 24, 16), 1):
        if block > 1:
            x = _transition(x, f"features.transition{block - 1}")
        for i in range(1, count + 1):
            x = Concatenate()([x, _layer(x, f"features.denseblock{block}.denselayer{i}")])
    x = ReLU()(batch_norm("features.norm5")(x))
    x = pooled_classifier(x, classes, classifier_activation, name="classifier")
    return Model(inputs, x, name="densenet121")


def _layer(x: SymbolicTensor, name: str) -> SymbolicTensor:
    """The channels that a layer adds: normalization and ReLU stand before each convolution."""
    x = ReLU()(batch_norm(f"{name}.norm1")(x))
    x = conv_bn(x, 4 * GROWTH, 1, names=(f"{name}.conv1", f"{name}.norm2"))
    return _conv(GROWTH, 3, f"{name}.conv2")(x)


def _transition(x: SymbolicTensor, name: str) -> SymbolicTensor:
    """Half of the channels, the height and the width."""
    x = ReLU()(batch_norm(f"{name}.norm")(x))
    x = _conv(x.shape[-1] // 2, 1, f"{name}.conv")(x)
    return AveragePooling2D()(x)


def _conv(filters: int, size: int, name: str) -> Conv2D:
    return Conv2D(
        filters,
        size,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )
