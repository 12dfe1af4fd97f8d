"""Residual networks: He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition,
arXiv:1512.03385."""

from collections.abc import Callable, Sequence

from convlet.applications.blocks import conv_bn, pooled_classifier
from convlet.applications.start import Scale, Shape, start
from convlet.layers import Add, MaxPooling2D, ReLU, SymbolicTensor
from convlet.models import Model

# (x, filters, stride, name) -> y
Block = Callable[[SymbolicTensor, int, int, str], SymbolicTensor]


def resnet18(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """ResNet-18: 11.7 M parameters."""
    inputs, x = start("resnet18", input_shape, classes, scale)
    x = stages(stem(x), basic, (2, 2, 2, 2))
    x = pooled_classifier(x, classes, classifier_activation, name="fc")
    return Model(inputs, x, name="resnet18")


def resnet34(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """ResNet-34: 21.8 M parameters."""
    inputs, x = start("resnet34", input_shape, classes, scale)
    x = stages(stem(x), basic, (3, 4, 6, 3))
    x = pooled_classifier(x, classes, classifier_activation, name="fc")
    return Model(inputs, x, name="resnet34")


def resnet50(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """ResNet-50, with the stride in the 3x3 convolution as torchvision has it: 25.6 M
    parameters."""
    inputs, x = start("resnet50", input_shape, classes, scale)
    x = stages(stem(x), bottleneck, (3, 4, 6, 3))
    x = pooled_classifier(x, classes, classifier_activation, name="fc")
    return Model(inputs, x, name="resnet50")


def resnet18_cifar(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """ResNet-18 for small images: it begins with a 3x3 convolution and does not pool; 11.2 M
    parameters."""
    inputs, x = start("resnet18_cifar", input_shape, classes, scale)
    x = conv_bn(x, 64, 3, names=("conv1", "bn1"))
    x = stages(x, basic, (2, 2, 2, 2))
    x = pooled_classifier(x, classes, classifier_activation, name="fc")
    return Model(inputs, x, name="resnet18_cifar")


def stem(x: SymbolicTensor) -> SymbolicTensor:
    """A 7x7 convolution and a max pooling: a quarter of the height and width."""
    x = conv_bn(x, 64, 7, 2, names=("conv1", "bn1"))
    return MaxPooling2D(3, 2, padding=1)(x)


def stages(x: SymbolicTensor, block: Block, counts: Sequence[int]) -> SymbolicTensor:
    """Four stages of blocks. Each but the first halves the image and doubles the filters."""
    for stage, count in enumerate(counts):
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            x = block(x, 64 * 2**stage, stride, f"layer{stage + 1}.{i}")
    return x


def basic(x: SymbolicTensor, filters: int, stride: int, name: str) -> SymbolicTensor:
    """Two 3x3 convolutions, added to what went in."""
    y = conv_bn(x, filters, 3, stride, names=(f"{name}.conv1", f"{name}.bn1"))
    y = conv_bn(y, filters, 3, names=(f"{name}.conv2", f"{name}.bn2"), activation=None)
    return ReLU()(Add()([y, shortcut(x, filters, stride, name)]))


def bottleneck(
    x: SymbolicTensor,
    filters: int,
    stride: int,
    name: str,
    gate: Callable[[SymbolicTensor, str], SymbolicTensor] | None = None,
) -> SymbolicTensor:
    """A 3x3 convolution between two of 1x1, added to what went in; 4 * filters come out.

    gate: a layer, or several, between the convolutions and the sum.
    """
    y = conv_bn(x, filters, 1, names=(f"{name}.conv1", f"{name}.bn1"))
    y = conv_bn(y, filters, 3, stride, names=(f"{name}.conv2", f"{name}.bn2"))
    y = conv_bn(y, 4 * filters, 1, names=(f"{name}.conv3", f"{name}.bn3"), activation=None)
    if gate is not None:
        y = gate(y, name)
    return ReLU()(Add()([y, shortcut(x, 4 * filters, stride, name)]))


def shortcut(x: SymbolicTensor, filters: int, stride: int, name: str) -> SymbolicTensor:
    """x, by a 1x1 convolution where its shape is another than the block's result."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    names = (f"{name}.downsample.0", f"{name}.downsample.1")
    return conv_bn(x, filters, 1, stride, names=names, activation=None)
