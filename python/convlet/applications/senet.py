"""Squeeze and excitation: Hu, Shen, Albanie, Sun and Wu, Squeeze-and-Excitation Networks,
arXiv:1709.01507."""

from functools import partial

from convlet.applications.blocks import pooled_classifier
from convlet.applications.resnet import bottleneck, stages, stem
from convlet.applications.start import Scale, Shape, start
from convlet.layers import Conv2D, GlobalAveragePooling2D, Multiply, SymbolicTensor
from convlet.models import Model


def se_resnet50(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """ResNet-50 whose blocks weigh their channels (timm's seresnet50): 28.1 M parameters."""
    inputs, x = start("se_resnet50", input_shape, classes, scale)
    x = stages(stem(x), partial(bottleneck, gate=squeeze_excite), (3, 4, 6, 3))
    x = pooled_classifier(x, classes, classifier_activation, name="fc")
    return Model(inputs, x, name="se_resnet50")


def squeeze_excite(x: SymbolicTensor, name: str) -> SymbolicTensor:
    """Every channel times a factor that two dense layers make of the means of all channels."""
    channels = x.shape[-1]
    y = GlobalAveragePooling2D(keepdims=True)(x)
    y = Conv2D(channels // 16, 1, activation="relu", name=f"{name}.se.fc1")(y)
    y = Conv2D(channels, 1, activation="sigmoid", name=f"{name}.se.fc2")(y)
    return Multiply()([x, y])
