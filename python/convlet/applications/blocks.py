"""What the networks with batch normalization have in common."""

from convlet.layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    GlobalAveragePooling2D,
    SymbolicTensor,
)

MOMENTUM = 0.9  # of the moving averages; torch calls the same 0.1


def conv_bn(
    x: SymbolicTensor,
    filters: int,
    size: int | tuple[int, int],
    stride: int = 1,
    *,
    names: tuple[str, str],
    padding: str | None = None,
    activation: str | None = "relu",
    groups: int = 1,
    epsilon: float = 1e-5,
) -> SymbolicTensor:
    """A convolution, batch normalization, and an activation.

    names: of the convolution and of the normalization.
    padding: when None, half the window on every side.
    """
    height, width = (size, size) if isinstance(size, int) else size
    x = Conv2D(
        filters,
        (height, width),
        stride,
        (height // 2, width // 2) if padding is None else padding,
        groups=groups,
        use_bias=False,
        kernel_initializer="he_normal",
        name=names[0],
    )(x)
    x = batch_norm(names[1], epsilon)(x)
    return x if activation is None else Activation(activation)(x)


def batch_norm(name: str, epsilon: float = 1e-5) -> BatchNormalization:
    """Batch normalization with torch's defaults."""
    return BatchNormalization(momentum=MOMENTUM, epsilon=epsilon, name=name)


def pooled_classifier(
    x: SymbolicTensor,
    classes: int,
    activation: str | None,
    *,
    name: str,
    dropout: float = 0.0,
) -> SymbolicTensor:
    """The mean of every channel, and a dense layer on them."""
    x = GlobalAveragePooling2D()(x)
    if dropout:
        x = Dropout(dropout)(x)
    return Dense(classes, activation=activation, name=name)(x)
