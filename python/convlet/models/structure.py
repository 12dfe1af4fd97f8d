"""One value, a list or a dict of them: how a model's inputs, outputs, losses and metrics are
given."""

from collections.abc import Iterable, Sequence
from typing import Any

Structure = None | str | list[str]  # a single value, "list", or the keys of a dict


def flatten(value: Any) -> tuple[list[Any], Structure]:
    """The leaves of a value, a list or tuple of values, or a dict of values, and which it was."""
    if isinstance(value, dict):
        return list(value.values()), [str(key) for key in value]
    if isinstance(value, (list, tuple)):
        return list(value), "list"
    return [value], None


def pack(leaves: Sequence[Any], structure: Structure) -> Any:
    """The inverse of flatten."""
    if structure is None:
        return leaves[0]
    if structure == "list":
        return list(leaves)
    return dict(zip(structure, leaves, strict=True))


def unique_name(wanted: str, taken: Iterable[str]) -> str:
    """``wanted``, or the first of wanted_1, wanted_2, ... that is free."""
    taken, name, number = set(taken), wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
