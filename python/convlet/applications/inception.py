"""Inception v3: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, Rethinking the Inception Architecture
for Computer Vision, arXiv:1512.00567."""

from convlet.applications.blocks import conv_bn, pooled_classifier
from convlet.applications.start import Scale, Shape, start
from convlet.layers import (
    AveragePooling2D,
    Concatenate,
    MaxPooling2D,
    SymbolicTensor,
    ZeroPadding2D,
)
from convlet.models import Model

Window = int | tuple[int, int]


def inception_v3(
    input_shape: Shape = (299, 299, 3),
    classes: int = 1000,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """torchvision's inception_v3 without the auxiliary classifier, which only helped training:
    23.8 M parameters."""
    inputs, x = start("inception_v3", input_shape, classes, scale)
    x = _conv(x, 32, 3, "Conv2d_1a_3x3", shrinks=2)
    x = _conv(x, 32, 3, "Conv2d_2a_3x3", shrinks=1)
    x = _conv(x, 64, 3, "Conv2d_2b_3x3")
    x = MaxPooling2D(3, 2)(x)
    x = _conv(x, 80, 1, "Conv2d_3b_1x1")
    x = _conv(x, 192, 3, "Conv2d_4a_3x3", shrinks=1)
    x = MaxPooling2D(3, 2)(x)
    for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        x = _squares(x, pooled, name)
    x = _halve_after_squares(x, "Mixed_6a")
    for name, narrow in (
        ("Mixed_6b", 128),
        ("Mixed_6c", 160),
        ("Mixed_6d", 160),
        ("Mixed_6e", 192),
    ):
        x = _rows_and_columns(x, narrow, name)
    x = _halve_after_rows_and_columns(x, "Mixed_7a")
    for name in ("Mixed_7b", "Mixed_7c"):
        x = _widen(x, name)
    x = pooled_classifier(x, classes, classifier_activation, name="fc", dropout=0.5)
    return Model(inputs, x, name="inception_v3")


def _squares(x: SymbolicTensor, pooled: int, name: str) -> SymbolicTensor:
    """Figure 5 of the paper: windows of 1x1, 5x5, and 3x3 twice."""
    y1 = _conv(x, 64, 1, f"{name}.branch1x1")
    y2 = _conv(x, 48, 1, f"{name}.branch5x5_1")
    y2 = _conv(y2, 64, 5, f"{name}.branch5x5_2")
    y3 = _conv(x, 64, 1, f"{name}.branch3x3dbl_1")
    y3 = _conv(y3, 96, 3, f"{name}.branch3x3dbl_2")
    y3 = _conv(y3, 96, 3, f"{name}.branch3x3dbl_3")
    return Concatenate()([y1, y2, y3, _pooled(x, pooled, name)])


def _halve_after_squares(x: SymbolicTensor, name: str) -> SymbolicTensor:
    """Figure 10: half of the height and width."""
    y1 = _conv(x, 384, 3, f"{name}.branch3x3", shrinks=2)
    y2 = _conv(x, 64, 1, f"{name}.branch3x3dbl_1")
    y2 = _conv(y2, 96, 3, f"{name}.branch3x3dbl_2")
    y2 = _conv(y2, 96, 3, f"{name}.branch3x3dbl_3", shrinks=2)
    return Concatenate()([y1, y2, MaxPooling2D(3, 2)(x)])


def _rows_and_columns(x: SymbolicTensor, narrow: int, name: str) -> SymbolicTensor:
    """Figure 6: 7x7 windows as rows of 1x7 after columns of 7x1."""
    y1 = _conv(x, 192, 1, f"{name}.branch1x1")
    y2 = _conv(x, narrow, 1, f"{name}.branch7x7_1")
    y2 = _conv(y2, narrow, (1, 7), f"{name}.branch7x7_2")
    y2 = _conv(y2, 192, (7, 1), f"{name}.branch7x7_3")
    y3 = _conv(x, narrow, 1, f"{name}.branch7x7dbl_1")
    y3 = _conv(y3, narrow, (7, 1), f"{name}.branch7x7dbl_2")
    y3 = _conv(y3, narrow, (1, 7), f"{name}.branch7x7dbl_3")
    y3 = _conv(y3, narrow, (7, 1), f"{name}.branch7x7dbl_4")
    y3 = _conv(y3, 192, (1, 7), f"{name}.branch7x7dbl_5")
    return Concatenate()([y1, y2, y3, _pooled(x, 192, name)])


def _halve_after_rows_and_columns(x: SymbolicTensor, name: str) -> SymbolicTensor:
    """Half of the height and width."""
    y1 = _conv(x, 192, 1, f"{name}.branch3x3_1")
    y1 = _conv(y1, 320, 3, f"{name}.branch3x3_2", shrinks=2)
    y2 = _conv(x, 192, 1, f"{name}.branch7x7x3_1")
    y2 = _conv(y2, 192, (1, 7), f"{name}.branch7x7x3_2")
    y2 = _conv(y2, 192, (7, 1), f"{name}.branch7x7x3_3")
    y2 = _conv(y2, 192, 3, f"{name}.branch7x7x3_4", shrinks=2)
    return Concatenate()([y1, y2, MaxPooling2D(3, 2)(x)])


def _widen(x: SymbolicTensor, name: str) -> SymbolicTensor:
    """Figure 7: rows and columns side by side, 2048 channels."""
    y1 = _conv(x, 320, 1, f"{name}.branch1x1")
    y2 = _conv(x, 384, 1, f"{name}.branch3x3_1")
    y2a = _conv(y2, 384, (1, 3), f"{name}.branch3x3_2a")
    y2b = _conv(y2, 384, (3, 1), f"{name}.branch3x3_2b")
    y3 = _conv(x, 448, 1, f"{name}.branch3x3dbl_1")
    y3 = _conv(y3, 384, 3, f"{name}.branch3x3dbl_2")
    y3a = _conv(y3, 384, (1, 3), f"{name}.branch3x3dbl_3a")
    y3b = _conv(y3, 384, (3, 1), f"{name}.branch3x3dbl_3b")
    return Concatenate()([y1, y2a, y2b, y3a, y3b, _pooled(x, 192, name)])


def _pooled(x: SymbolicTensor, filters: int, name: str) -> SymbolicTensor:
    """A 1x1 convolution of the mean of 3x3 windows, which here counts the padding's zeros."""
    x = AveragePooling2D(3, 1)(ZeroPadding2D(1)(x))
    return _conv(x, filters, 1, f"{name}.branch_pool")


def _conv(
    x: SymbolicTensor, filters: int, size: Window, name: str, shrinks: int = 0
) -> SymbolicTensor:
    """shrinks: the stride of a convolution that stays inside the image; 0 keeps its size."""
    return conv_bn(
        x,
        filters,
        size,
        max(1, shrinks),
        padding="valid" if shrinks else "same",
        names=(f"{name}.conv", f"{name}.bn"),
        epsilon=1e-3,
    )
