"""Checks of layer arguments. Each error names the layer, the argument, what was expected and what
came."""

from collections.abc import Sequence
from typing import Any

import numpy as np

FUSED_ACTIVATIONS = (
    *("relu", "sigmoid", "tanh", "gelu", "silu", "relu6", "leaky_relu", "elu", "selu", "softplus"),
    *("exponential", "hard_sigmoid", "hard_swish"),
)
ROW_ACTIVATIONS = ("softmax", "log_softmax")


def expected(owner: str, argument: str, what: str, got: Any) -> ValueError:
    """The error for a bad argument."""
    return ValueError(f"{owner}: {argument}: expected {what}, got {got!r}")


def is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def integer(owner: str, argument: str, value: Any, least: int = 1) -> int:
    """An integer >= least."""
    if not is_integer(value) or value < least or value >= 2**31:
        raise expected(owner, argument, f"an integer >= {least}", value)
    return int(value)


def number(owner: str, argument: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise expected(owner, argument, "a number", value)
    if not np.isfinite(value):
        raise expected(owner, argument, "a finite number", value)
    return float(value)


def pair(owner: str, argument: str, value: Any, least: int = 1) -> tuple[int, int]:
    """(height, width) from one integer or a pair of them, each >= least."""
    values = (value, value) if is_integer(value) else value
    ok = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == 2
    if not ok or not all(is_integer(v) and least <= v < 2**31 for v in values):
        raise expected(owner, argument, f"an integer >= {least} or a pair of them", value)
    return int(values[0]), int(values[1])


def flag(owner: str, argument: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise expected(owner, argument, "True or False", value)
    return bool(value)


Padding = str | tuple[tuple[int, int], tuple[int, int]]


def padding(owner: str, value: Any) -> Padding:
    """ "valid" or "same", in any case, or ((top, bottom), (left, right)) from numbers."""
    if isinstance(value, str) and value.lower() in ("valid", "same"):
        return value.lower()
    if isinstance(value, str):
        raise expected(owner, "padding", "'valid', 'same' or numbers", value)
    return sides(owner, "padding", value)


def sides(owner: str, argument: str, value: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)) from an integer, (height, width), or that, each >= 0."""
    values = (value, value) if is_integer(value) else value
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        what = "an integer, (h, w) or ((top, bottom), (left, right))"
        raise expected(owner, argument, what, value)
    rows, columns = (pair(owner, argument, v, least=0) for v in values)
    return rows, columns


def padding_attribute(value: Padding) -> dict[str, Any]:
    """What ``padding`` gave, as an attribute of a windowed node."""
    if isinstance(value, str):
        return {"padding": value}
    return {"pad": [*value[0], *value[1]]}


def padding_config(value: Padding) -> Any:
    """What ``padding`` gave, as JSON can hold it."""
    return value if isinstance(value, str) else [list(pair) for pair in value]


def activation(owner: str, value: Any) -> str | None:
    """The name of an activation, None for "linear"."""
    if value is None or value == "linear":
        return None
    if value in ("swish", "hard_silu"):  # Keras' second names
        return "silu" if value == "swish" else "hard_swish"
    if value in FUSED_ACTIVATIONS or value in ROW_ACTIVATIONS:
        return value
    names = ["linear", *FUSED_ACTIVATIONS, *ROW_ACTIVATIONS]
    raise expected(owner, "activation", f"None or one of {names}", value)


def channels_last(owner: str, value: Any) -> None:
    """data_format: None or "channels_last"; there is no other layout in convlet."""
    if value not in (None, "channels_last"):
        raise expected(
            owner,
            "data_format",
            "'channels_last' (images are (N,H,W,C); "
            "use np.transpose(x, (0, 2, 3, 1)) on (N,C,H,W))",
            value,
        )


def sample_shape(owner: str, argument: str, value: Any) -> tuple[int, ...]:
    """A shape without the batch axis: positive integers, 1 to 7 of them."""
    values = (value,) if is_integer(value) else value
    if not isinstance(values, Sequence) or isinstance(values, str) or not 1 <= len(values) <= 7:
        raise expected(owner, argument, "a tuple of 1 to 7 sizes without the batch axis", value)
    if any(v is None for v in values):
        raise expected(
            owner, argument, "fixed sizes (a model is compiled for one image size)", value
        )
    if not all(is_integer(v) and 1 <= v < 2**31 for v in values):
        raise expected(owner, argument, "positive sizes", value)
    return tuple(int(v) for v in values)


def weight_shape(owner: str, value: Any) -> tuple[int, ...]:
    """The shape of a weight: up to 8 positive sizes; () for None."""
    sizes = () if value is None else (value,) if is_integer(value) else value
    ok = isinstance(sizes, Sequence) and not isinstance(sizes, str) and len(sizes) <= 8
    if not ok or not all(is_integer(v) and 1 <= v < 2**31 for v in sizes):
        raise expected(owner, "add_weight: shape", "positive sizes", value)
    return tuple(int(v) for v in sizes)


def unsupported(owner: str, **arguments: Any) -> None:
    """Arguments that Keras has and convlet does not: anything but None is refused by name."""
    for argument, value in arguments.items():
        if value is not None:
            raise expected(owner, argument, "None (convlet does not have it)", value)
