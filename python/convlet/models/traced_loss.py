"""A loss of the user's as nodes of a graph."""

from collections.abc import Sequence
from typing import Any

from convlet.layers.base import Layer
from convlet.losses import Loss
from convlet.models.compilation import OutputLoss
from convlet.models.lowering import Lowering


class TracedLoss(Layer):
    """A loss as a layer of (y_true, y_pred), so that its nodes have its name."""

    may_average_batch = True  # ops.mean without axis, whose result it may return

    def __init__(self, loss: Loss):
        super().__init__(name=loss.name.replace("/", "_"))
        self.loss = loss
        self.built = True

    @property
    def owner(self) -> str:
        return f"loss {self.name!r}"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.loss.call(y_true, y_pred)


def lower_loss(
    lowering: Lowering, loss: OutputLoss, names: Sequence[str], outputs: Sequence[int]
) -> dict[str, int]:
    """Adds the nodes of a loss; returns what a plan must know of them."""
    target = lowering.graph.target(names[loss.output], list(loss.target_shape or ()))
    values = TracedLoss(loss.loss).lower(lowering, [target, outputs[loss.output]])
    if len(values) != 1:
        raise ValueError(f"loss {loss.loss.name!r}: expected one tensor, got {len(values)}")
    return {"value": values[0], "target": target}
