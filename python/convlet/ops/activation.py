"""Activations and their gradients, on arrays of any shape."""

from __future__ import annotations

from convlet import _core
from convlet._arguments import number
from convlet._interop import Array, borrow


def _activate(name: str, x: Array, out: Array | None, alpha: float | None = None) -> Array:
    x, y, give = borrow(name, out, x=x)
    return give(_core.activation(name, x, alpha, y))


def _activate_backward(
    name: str, dy: Array, second: str, y_or_x: Array, out: Array | None, alpha: float | None = None
) -> Array:
    dy, y_or_x, dx, give = borrow(f"{name}_backward", out, dy=dy, **{second: y_or_x})
    return give(_core.activation_backward(name, dy, y_or_x, alpha, dx))


def relu(x: Array, *, out: Array | None = None) -> Array:
    """y = max(x, 0); NaN stays NaN. x and y have any shape; out may be x."""
    return _activate("relu", x, out)


def relu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = dy where y > 0, else 0, with y = relu(x). All of one shape; out may be dy."""
    return _activate_backward("relu", dy, "y", y, out)


def sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """y = 1 / (1 + exp(-x)). x and y have any shape; out may be x."""
    return _activate("sigmoid", x, out)


def sigmoid_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = dy * y * (1 - y), with y = sigmoid(x). All of one shape; out may be dy."""
    return _activate_backward("sigmoid", dy, "y", y, out)


def tanh(x: Array, *, out: Array | None = None) -> Array:
    """y = tanh(x). x and y have any shape; out may be x."""
    return _activate("tanh", x, out)


def tanh_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = dy * (1 - y^2), with y = tanh(x). All of one shape; out may be dy."""
    return _activate_backward("tanh", dy, "y", y, out)


def gelu(x: Array, *, out: Array | None = None) -> Array:
    """y = x * (1 + erf(x / sqrt(2))) / 2, the exact form (Hendrycks & Gimpel 2016).

    x and y have any shape; out may be x.
    """
    return _activate("gelu", x, out)


def gelu_backward(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dx = dy * (Phi(x) + x * phi(x)), Phi and phi the normal distribution and its density.

    Takes x, not y, as y does not determine it. All of one shape; out may be dy.
    """
    return _activate_backward("gelu", dy, "x", x, out)


def silu(x: Array, *, out: Array | None = None) -> Array:
    """y = x * sigmoid(x), also called swish. x and y have any shape; out may be x."""
    return _activate("silu", x, out)


def silu_backward(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dx = dy * s * (1 + x * (1 - s)), s = sigmoid(x).

    Takes x, not y, as y does not determine it. All of one shape; out may be dy.
    """
    return _activate_backward("silu", dy, "x", x, out)


def relu6(x: Array, *, out: Array | None = None) -> Array:
    """y = min(max(x, 0), 6); NaN stays NaN. x and y have any shape; out may be x."""
    return _activate("relu6", x, out)


def relu6_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = dy where 0 < y < 6, else 0, with y = relu6(x). All of one shape; out may be dy."""
    return _activate_backward("relu6", dy, "y", y, out)


def leaky_relu(x: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """y = x where x > 0, else negative_slope * x.

    The default is torch's. A layer or op with activation="leaky_relu" has Keras' slope, 0.2.

    Args:
        x: of any shape.
        negative_slope: a number >= 0.
        out: where to write y; it may be x.

    Returns:
        y, of x's shape.
    """
    slope = number("leaky_relu", "negative_slope", negative_slope)
    return _activate("leaky_relu", x, out, slope)


def leaky_relu_backward(
    dy: Array, y: Array, negative_slope: float = 0.01, *, out: Array | None = None
) -> Array:
    """dx = dy where y > 0, else negative_slope * dy, with y = leaky_relu(x, negative_slope).

    All of one shape; out may be dy.
    """
    slope = number("leaky_relu_backward", "negative_slope", negative_slope)
    return _activate_backward("leaky_relu", dy, "y", y, out, slope)


def elu(x: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """y = x where x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2016).

    x and y have any shape; alpha is a number >= 0; out may be x.
    """
    return _activate("elu", x, out, number("elu", "alpha", alpha))


def elu_backward(dy: Array, y: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """dx = dy where y > 0, else dy * (y + alpha), with y = elu(x, alpha).

    All of one shape; out may be dy.
    """
    return _activate_backward("elu", dy, "y", y, out, number("elu_backward", "alpha", alpha))


def selu(x: Array, *, out: Array | None = None) -> Array:
    """y = s * x where x > 0, else s * a * (exp(x) - 1), s = 1.0507..., a = 1.6732...

    The constants keep mean 0 and variance 1 (Klambauer et al. 2017). x and y have any shape; out
    may be x.
    """
    return _activate("selu", x, out)


def selu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = dy * s where y > 0, else dy * (y + s * a), with y = selu(x).

    All of one shape; out may be dy.
    """
    return _activate_backward("selu", dy, "y", y, out)


def softplus(x: Array, *, out: Array | None = None) -> Array:
    """y = log(1 + exp(x)). x and y have any shape; out may be x."""
    return _activate("softplus", x, out)


def softplus_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dx = dy * (1 - exp(-y)), with y = softplus(x). All of one shape; out may be dy."""
    return _activate_backward("softplus", dy, "y", y, out)


def hard_sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """y = min(max(x + 3, 0), 6) / 6. x and y have any shape; out may be x."""
    return _activate("hard_sigmoid", x, out)


def hard_sigmoid_backward(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dx = dy / 6 where -3 < x < 3, else 0. Takes x, not y. All of one shape; out may be dy."""
    return _activate_backward("hard_sigmoid", dy, "x", x, out)


def hard_swish(x: Array, *, out: Array | None = None) -> Array:
    """y = x * min(max(x + 3, 0), 6) / 6, also called hard_silu (Howard et al. 2019).

    x and y have any shape; out may be x.
    """
    return _activate("hard_swish", x, out)


def hard_swish_backward(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dx = dy * (x / 3 + 1 / 2) where -3 < x < 3, dy above, 0 below.

    Takes x, not y, as y does not determine it. All of one shape; out may be dy.
    """
    return _activate_backward("hard_swish", dy, "x", x, out)
