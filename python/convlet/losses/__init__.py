"""Losses, with Keras' names, arguments and numerics. A model computes them in its plan, fused with
the softmax or sigmoid before them; called on arrays they run the same kernels.

A loss is a mean over the batch: sum_n(weight_n * l_n) / N (Keras' "sum_over_batch_size"). Where
labels are missing, which must be said (ignore_class, mask_missing), N counts the samples that have
one.

A loss of your own is a function (y_true, y_pred), or a subclass of Loss with ``call``, made of
``convlet.ops``: compile takes it, and the plan runs it. docs/extending.md has an example.
"""

from collections.abc import Callable
from typing import Any

from convlet.losses.base import Loss, integer_labels, shape_text
from convlet.losses.cross_entropy import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)
from convlet.losses.focal import (
    BinaryFocalCrossentropy,
    CategoricalFocalCrossentropy,
    SparseCategoricalFocalCrossentropy,
)


class FunctionLoss(Loss):
    """A function (y_true, y_pred) of the user's as a loss."""

    def __init__(self, function: Callable[[Any, Any], Any]):
        super().__init__(getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)


NAMES: dict[str, type[Loss]] = {
    "binary_crossentropy": BinaryCrossentropy,
    "binary_focal_crossentropy": BinaryFocalCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "categorical_focal_crossentropy": CategoricalFocalCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "sparse_categorical_focal_crossentropy": SparseCategoricalFocalCrossentropy,
}


def get(identifier: Any, custom_objects: dict[str, Any] | None = None) -> Loss:
    """The loss for a name, a class name, a {"class", "config"} dict, a function (y_true, y_pred) or
    a Loss; ValueError otherwise. ``custom_objects``: losses of the user's by name."""
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if callable(identifier):
        return FunctionLoss(identifier)
    name, config = identifier, {}
    if isinstance(identifier, dict):
        name, config = identifier.get("class"), identifier.get("config", {})
    if isinstance(name, str):
        if name.lower() in NAMES:
            return NAMES[name.lower()](**config)
        for cls in NAMES.values():
            if cls.__name__ == name:
                return cls(**config)
    if isinstance(identifier, dict) and isinstance(name, str):
        return _custom(name, config, custom_objects or {})
    raise ValueError(
        f"loss: expected one of {sorted(NAMES)}, a function (y_true, y_pred) or an object of "
        f"convlet.losses, got {identifier!r}"
    )


def _custom(name: str, config: dict[str, Any], custom_objects: dict[str, Any]) -> Loss:
    """The user's class or function of a name."""
    found = custom_objects.get(name)
    if found is None:
        raise ValueError(
            f"the loss {name!r} is not convlet's: hand it over with custom_objects={{{name!r}: "
            f"{name}}}, or load without it with compile=False"
        )
    if isinstance(found, type) and issubclass(found, Loss):
        return found(**config)
    if isinstance(found, Loss) or not callable(found):
        raise ValueError(
            "custom_objects: expected a class of loss or a function (y_true, y_pred) for "
            f"{name!r}, got {found!r}"
        )
    return FunctionLoss(found)


def serialize(loss: Loss) -> dict[str, Any]:
    """{"class", "config"}, from which ``get`` makes it again."""
    if isinstance(loss, FunctionLoss):
        return {"class": loss.name, "config": {}}
    return {"class": type(loss).__name__, "config": loss.get_config()}


__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "FunctionLoss",
    "Loss",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "SparseCategoricalFocalCrossentropy",
    "get",
    "integer_labels",
    "serialize",
    "shape_text",
]
