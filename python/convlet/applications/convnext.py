"""ConvNeXt: Liu, Mao, Wu, Feichtenhofer, Darrell and Xie, A ConvNet for the 2020s,
arXiv:2201.03545."""

from convlet.applications.start import Scale, Shape, start
from convlet.initializers import TruncatedNormal
from convlet.layers import (
    Add,
    Conv2D,
    Dense,
    GlobalAveragePooling2D,
    LayerNormalization,
    LayerScale,
    StochasticDepth,
    SymbolicTensor,
)
from convlet.models import Model

EPSILON = 1e-6
DROPPED = 0.1  # share of samples that skip the last block in training; less for those before


def convnext_tiny(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """ConvNeXt-T: 28.6 M parameters."""
    inputs, x = start("convnext_tiny", input_shape, classes, scale)
    x = _conv(x, 96, 4, 4, name="features.0.0")
    x = _norm("features.0.1")(x)
    depths, done = (3, 3, 9, 3), 0
    for stage, depth in enumerate(depths):
        if stage > 0:
            x = _norm(f"features.{2 * stage}.0")(x)
            x = _conv(x, 96 * 2**stage, 2, 2, name=f"features.{2 * stage}.1")
        for i in range(depth):
            rate = DROPPED * done / (sum(depths) - 1)
            x = _block(x, rate, f"features.{2 * stage + 1}.{i}")
            done += 1
    x = _norm("classifier.0")(GlobalAveragePooling2D()(x))
    x = Dense(classes, activation=classifier_activation, name="classifier.2")(x)
    return Model(inputs, x, name="convnext_tiny")


def _block(x: SymbolicTensor, rate: float, name: str) -> SymbolicTensor:
    """A 7x7 convolution of each channel by itself, then a dense network on every pixel."""
    channels = x.shape[-1]
    y = _conv(x, channels, 7, groups=channels, name=f"{name}.block.0")
    y = _norm(f"{name}.block.2")(y)
    y = Dense(4 * channels, "gelu", kernel_initializer=_normal(), name=f"{name}.block.3")(y)
    y = Dense(channels, kernel_initializer=_normal(), name=f"{name}.block.5")(y)
    y = LayerScale(1e-6, name=f"{name}.layer_scale")(y)
    return Add()([x, StochasticDepth(rate)(y)])


def _conv(
    x: SymbolicTensor, filters: int, size: int, stride: int = 1, *, name: str, groups: int = 1
) -> SymbolicTensor:
    padding = "same" if stride == 1 else "valid"
    return Conv2D(
        filters,
        size,
        stride,
        padding,
        groups=groups,
        kernel_initializer=_normal(),
        name=name,
    )(x)


def _norm(name: str) -> LayerNormalization:
    return LayerNormalization(epsilon=EPSILON, name=name)


def _normal() -> TruncatedNormal:
    return TruncatedNormal(stddev=0.02)
