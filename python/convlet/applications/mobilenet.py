"""MobileNetV2: Sandler, Howard, Zhu, Zhmoginov and Chen, MobileNetV2: Inverted Residuals and Linear
Bottlenecks, arXiv:1801.04381."""

from convlet.applications.blocks import conv_bn, pooled_classifier
from convlet.applications.start import Scale, Shape, start
from convlet.layers import Add, SymbolicTensor
from convlet.models import Model

# (expansion, filters, blocks, stride of the first), table 2 of the paper
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """MobileNetV2 at width 1: 3.5 M parameters."""
    inputs, x = start("mobilenet_v2", input_shape, classes, scale)
    x = _conv(x, 32, 3, 2, name="features.0")
    position = 1
    for expansion, filters, count, stride in STAGES:
        for i in range(count):
            name = f"features.{position}.conv"
            x = _inverted_residual(x, expansion, filters, stride if i == 0 else 1, name)
            position += 1
    x = _conv(x, 1280, 1, name=f"features.{position}")
    x = pooled_classifier(x, classes, classifier_activation, name="classifier.1", dropout=0.2)
    return Model(inputs, x, name="mobilenet_v2")


def _inverted_residual(
    x: SymbolicTensor, expansion: int, filters: int, stride: int, name: str
) -> SymbolicTensor:
    """To more channels, a 3x3 convolution of each by itself, and back to few, without ReLU."""
    channels = x.shape[-1]
    wide, y, position = expansion * channels, x, 0
    if expansion > 1:
        y = _conv(y, wide, 1, name=f"{name}.0")
        position = 1
    y = _conv(y, wide, 3, stride, groups=wide, name=f"{name}.{position}")
    names = (f"{name}.{position + 1}", f"{name}.{position + 2}")
    y = conv_bn(y, filters, 1, names=names, activation=None)
    return Add()([x, y]) if stride == 1 and channels == filters else y


def _conv(
    x: SymbolicTensor, filters: int, size: int, stride: int = 1, *, name: str, groups: int = 1
) -> SymbolicTensor:
    names = (f"{name}.0", f"{name}.1")
    return conv_bn(x, filters, size, stride, names=names, activation="relu6", groups=groups)
