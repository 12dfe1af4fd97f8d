"""Penalties on weights: l1 * sum|w| + l2 * sum(w^2), added to the loss (Keras' definition)."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


class L1L2:
    """l1 * sum|w| + l2 * sum(w^2).

    Raises:
        ValueError: when a factor is negative or not finite.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0):
        for name, factor in (("l1", l1), ("l2", l2)):
            if not isinstance(factor, (int, float, np.number)) or not 0 <= factor < math.inf:
                raise ValueError(
                    f"{type(self).__name__}: {name}: expected a number >= 0, got {factor!r}"
                )
        self.l1, self.l2 = float(l1), float(l2)

    def __call__(self, weights: ArrayLike) -> float:
        w = np.asarray(weights, np.float64)
        return float(self.l1 * np.abs(w).sum() + self.l2 * np.square(w).sum())

    def get_config(self) -> dict[str, float]:
        return {"l1": self.l1, "l2": self.l2}


class L1(L1L2):
    """l1 * sum|w|."""

    def __init__(self, l1: float = 0.01):
        super().__init__(l1=l1)


class L2(L1L2):
    """l2 * sum(w^2)."""

    def __init__(self, l2: float = 0.01):
        super().__init__(l2=l2)


l1, l2 = L1, L2


def l1_l2(l1: float = 0.01, l2: float = 0.01) -> L1L2:
    """Both penalties, with Keras' defaults for this name."""
    return L1L2(l1, l2)


def get(identifier: Any, owner: str = "regularizer") -> L1L2 | None:
    """The regularizer for None, "l1", "l2", "l1_l2", an {"l1", "l2"} dict or an L1L2; ValueError
    that begins with ``owner`` otherwise."""
    if identifier is None or isinstance(identifier, L1L2):
        return identifier
    if isinstance(identifier, dict) and set(identifier) <= {"l1", "l2"}:
        return L1L2(**identifier)
    if identifier in ("l1", "l2", "l1_l2", "L1", "L2", "L1L2"):
        return {"l1": L1, "l2": L2, "l1_l2": l1_l2, "l1l2": l1_l2}[str(identifier).lower()]()
    raise ValueError(
        f"{owner}: expected None, 'l1', 'l2', 'l1_l2' or an object of convlet.regularizers, "
        f"got {identifier!r}"
    )
