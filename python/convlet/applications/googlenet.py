"""GoogLeNet: Szegedy and others, Going Deeper with Convolutions, arXiv:1409.4842."""

from convlet.applications.blocks import conv_bn, pooled_classifier
from convlet.applications.start import Scale, Shape, start
from convlet.layers import Concatenate, MaxPooling2D, SymbolicTensor
from convlet.models import Model

# Channels of the branches: 1x1; 1x1 before 3x3, 3x3; the same again; 1x1 after the pooling. Names
# as in the paper's table 1. A number stands for a pooling of that window.
MODULES = (
    ("3a", (64, 96, 128, 16, 32, 32)),
    ("3b", (128, 128, 192, 32, 96, 64)),
    ("pool", 3),
    ("4a", (192, 96, 208, 16, 48, 64)),
    ("4b", (160, 112, 224, 24, 64, 64)),
    ("4c", (128, 128, 256, 24, 64, 64)),
    ("4d", (112, 144, 288, 32, 64, 64)),
    ("4e", (256, 160, 320, 32, 128, 128)),
    ("pool", 2),
    ("5a", (256, 160, 320, 32, 128, 128)),
    ("5b", (384, 192, 384, 48, 128, 128)),
)


def googlenet(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """torchvision's googlenet: with batch normalization, 3x3 where the paper has 5x5, and without
    the auxiliary classifiers, which only helped training; 6.6 M parameters."""
    inputs, x = start("googlenet", input_shape, classes, scale)
    x = _conv(x, 64, 7, 2, name="conv1")
    x = _pool(x, 3)
    x = _conv(x, 64, 1, name="conv2")
    x = _conv(x, 192, 3, name="conv3")
    x = _pool(x, 3)
    for name, widths in MODULES:
        x = _pool(x, widths) if name == "pool" else _inception(x, widths, f"inception{name}")
    x = pooled_classifier(x, classes, classifier_activation, name="fc", dropout=0.2)
    return Model(inputs, x, name="googlenet")


def _inception(x: SymbolicTensor, widths: tuple[int, ...], name: str) -> SymbolicTensor:
    """Windows of several sizes side by side."""
    one, before_three, three, before_five, five, after_pool = widths
    y1 = _conv(x, one, 1, name=f"{name}.branch1")
    y2 = _conv(x, before_three, 1, name=f"{name}.branch2.0")
    y2 = _conv(y2, three, 3, name=f"{name}.branch2.1")
    y3 = _conv(x, before_five, 1, name=f"{name}.branch3.0")
    y3 = _conv(y3, five, 3, name=f"{name}.branch3.1")
    y4 = MaxPooling2D(3, 1, "same")(x)
    y4 = _conv(y4, after_pool, 1, name=f"{name}.branch4.1")
    return Concatenate()([y1, y2, y3, y4])


def _pool(x: SymbolicTensor, window: int) -> SymbolicTensor:
    """Max pooling with stride 2 that leaves no row or column out: torch's ceil_mode."""
    sides = [(0, max(window - side, (side - window) % 2)) for side in x.shape[1:3]]
    return MaxPooling2D(window, 2, (sides[0], sides[1]))(x)


def _conv(
    x: SymbolicTensor, filters: int, size: int, stride: int = 1, *, name: str
) -> SymbolicTensor:
    names = (f"{name}.conv", f"{name}.bn")
    return conv_bn(x, filters, size, stride, names=names, epsilon=1e-3)
