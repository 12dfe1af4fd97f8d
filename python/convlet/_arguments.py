"""Options of ops in the form that the compiled module takes. It checks values; here only types.

Every function raises TypeError for a wrong type, with the op, the argument, what was expected and
what came, and ValueError for an integer beyond 64 bits.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal

Pair = tuple[int, int]
Size2 = int | Pair
Precision = Literal["float32", "tf32", "bfloat16"]
Padding = int | Pair | tuple[Pair, Pair] | Literal["valid", "same"]


def _index(op: str, name: str, value: Any, expected: str) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: expected {name} to be {expected}, got {value!r}") from None


def integer(op: str, name: str, value: Any, expected: str = "an integer") -> int:
    """An int, or anything that Python takes as an index, but no bool."""
    number = _index(op, name, value, expected)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{op}: expected {name} to fit in 64 bits, got {number}")
    return number


def counter(op: str, name: str, value: Any, bits: int) -> int:
    """An integer in [0, 2^bits); ValueError otherwise."""
    number = _index(op, name, value, "an integer")
    if not 0 <= number < 2**bits:
        raise ValueError(f"{op}: expected {name} in [0, 2^{bits}), got {number}")
    return number


def number(op: str, name: str, value: Any) -> float:
    """A float or an int, but no bool or string."""
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{op}: expected {name} to be a number, got {value!r}") from None
    except OverflowError:
        raise ValueError(f"{op}: expected {name} to fit in a float, got {value!r}") from None


def flag(op: str, name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{op}: expected {name} to be a bool, got {value!r}")
    return value


def text(op: str, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{op}: expected {name} to be a string, got {value!r}")
    return value


def integers(op: str, name: str, value: Any) -> list[int]:
    """A sequence of integers, such as a shape."""
    expected = "a sequence of integers"
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{op}: expected {name} to be {expected}, got {value!r}")
    return [integer(op, name, item, expected) for item in value]


def pair(op: str, name: str, value: Any) -> Pair:
    """An integer for both axes, or (h, w)."""
    expected = "an integer or a pair of integers (h, w)"
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise TypeError(f"{op}: expected {name} to be {expected}, got {value!r}")
        return integer(op, name, value[0], expected), integer(op, name, value[1], expected)
    single = integer(op, name, value, expected)
    return single, single


def sides(op: str, value: Any) -> str | tuple[Pair, Pair]:
    """Padding: an integer, (h, w), ((top, bottom), (left, right)), "valid" or "same"."""
    if isinstance(value, str):
        if value not in ("valid", "same"):
            raise ValueError(f'{op}: expected padding "valid", "same" or integers, got "{value}"')
        return value

    expected = 'an integer, (h, w), ((top, bottom), (left, right)), "valid" or "same"'

    def two(item: Any) -> tuple[Any, Any]:
        if not isinstance(item, (tuple, list)):
            return item, item
        if len(item) != 2:
            raise TypeError(f"{op}: expected padding to be {expected}, got {value!r}")
        return item[0], item[1]

    def ends(side: Any) -> Pair:
        before, after = two(side)
        return (
            integer(op, "padding", before, expected),
            integer(op, "padding", after, expected),
        )

    vertical, horizontal = two(value)
    return ends(vertical), ends(horizontal)


def activation_name(op: str, value: Any) -> str:
    """The name of an activation, or None for none."""
    return "" if value is None else text(op, "activation", value)
