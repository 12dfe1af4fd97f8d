"""Focal cross-entropies (Lin et al. 2017)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.losses.base import F32
from convlet.losses.cross_entropy import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
)


class CategoricalFocalCrossentropy(CategoricalCrossentropy):
    """-alpha sum_c t[c] (1 - p[c])^gamma log p[c]: a cross-entropy that turns to the samples that
    are still hard (Lin et al. 2017, "Focal Loss for Dense Object Detection").

    Args:
        alpha: the factor of the whole loss.
        gamma: how much easy samples lose, >= 0; with 0 and alpha 1 it is the cross-entropy.
        from_logits, label_smoothing, mask_missing: see CategoricalCrossentropy.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        *,
        mask_missing: bool = False,
    ):
        super().__init__(
            from_logits, label_smoothing, axis, reduction, name, mask_missing=mask_missing
        )
        self.alpha, self.gamma = _focal_numbers(name, alpha, gamma)
        self.focal = (self.gamma,)

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        return np.float32(self.alpha) * super().rows(targets, predictions)

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"focal_gamma": self.gamma, "positive_weight": self.alpha}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"alpha": self.alpha, "gamma": self.gamma}


class SparseCategoricalFocalCrossentropy(SparseCategoricalCrossentropy):
    """CategoricalFocalCrossentropy for integer labels (N,) or (N,1). Keras has none of this kind.

    Args:
        alpha, gamma: see CategoricalFocalCrossentropy.
        from_logits, ignore_class, label_smoothing: see SparseCategoricalCrossentropy.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "sparse_categorical_focal_crossentropy",
        *,
        label_smoothing: float = 0.0,
    ):
        super().__init__(
            from_logits, ignore_class, reduction, name, label_smoothing=label_smoothing
        )
        self.alpha, self.gamma = _focal_numbers(name, alpha, gamma)
        self.focal = (self.gamma,)

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        return np.float32(self.alpha) * super().rows(targets, predictions)

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"focal_gamma": self.gamma, "positive_weight": self.alpha}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"alpha": self.alpha, "gamma": self.gamma}


class BinaryFocalCrossentropy(BinaryCrossentropy):
    """The binary cross-entropy times (1 - q)^gamma, q = t p + (1 - t) (1 - p) the probability of
    the right answer (Lin et al. 2017).

    Args:
        apply_class_balancing: multiply by alpha t + (1 - alpha) (1 - t) too.
        alpha: in [0, 1], the weight of the answer 1.
        gamma: how much easy answers lose, >= 0.
        from_logits, label_smoothing, mask_missing: see BinaryCrossentropy.
    """

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        *,
        mask_missing: bool = False,
    ):
        super().__init__(
            from_logits, label_smoothing, axis, reduction, name, mask_missing=mask_missing
        )
        self.apply_class_balancing = bool(apply_class_balancing)
        self.alpha, self.gamma = _focal_numbers(name, alpha, gamma)
        if self.alpha > 1:
            raise ValueError(f"{name}: alpha: expected a number in [0, 1], got {alpha!r}")
        self.focal = (self.gamma, self.alpha if self.apply_class_balancing else None)

    def spec(self) -> dict[str, Any]:
        spec = super().spec() | {"focal_gamma": self.gamma}
        if self.apply_class_balancing:
            spec |= {"positive_weight": self.alpha, "negative_weight": 1 - self.alpha}
        return spec

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "apply_class_balancing": self.apply_class_balancing,
            "alpha": self.alpha,
            "gamma": self.gamma,
        }


def _focal_numbers(owner: str, alpha: Any, gamma: Any) -> tuple[float, float]:
    for argument, value in (("alpha", alpha), ("gamma", gamma)):
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not number or not 0 <= value < np.inf:
            raise ValueError(f"{owner}: {argument}: expected a number >= 0, got {value!r}")
    return float(alpha), float(gamma)
