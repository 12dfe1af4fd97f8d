"""Fine-tuning: train a new head on a frozen backbone, then both."""

from collections.abc import Sequence
from typing import Any

from convlet.callbacks import Callback, History
from convlet.layers import arguments
from convlet.layers.base import Layer
from convlet.models.model import Model


def fine_tune(
    model: Model,
    x: Any,
    y: Any = None,
    *,
    head: Layer | str | Sequence[Layer | str] | None = None,
    head_epochs: int = 5,
    epochs: int = 10,
    learning_rate_scale: float = 0.1,
    callbacks: Any = None,
    **fit_arguments: Any,
) -> History:
    """One ``fit`` in two phases: first the head alone is trained, on a backbone that stays as it
    is; then all layers, the backbone with a smaller learning rate.

    The model must be compiled; its optimizer starts anew, with its learning rate, in each phase.
    Layers that were frozen before stay frozen. Afterwards the backbone's layers keep
    ``learning_rate_scale``, so that a later fit goes on in the same way.

    Args:
        model: the backbone with its weights and a head that fits the new classes.
        x, y: as fit takes them.
        head: the layers, or their names, that are trained in both phases; None for the last layer
            that has weights. All others are the backbone.
        head_epochs: of the first phase.
        epochs: of the second phase.
        learning_rate_scale: the factor of the backbone's learning rate in the second phase.
        callbacks, fit_arguments: as fit takes them (batch_size, validation_data, ...). They see one
            training of head_epochs + epochs.

    Returns:
        The History of all epochs.

    Raises:
        RuntimeError: when the model is not compiled.
        ValueError: for a head that is not in the model or is all of it.
    """
    if not model.compiled:
        raise RuntimeError("fine_tune: expected a compiled model: call compile(optimizer, loss)")
    model.build_for(x, "fine_tune")
    for argument in ("epochs", "initial_epoch"):
        if argument in fit_arguments:
            raise TypeError(f"fine_tune: unexpected argument {argument!r}")
    head_epochs = arguments.integer("fine_tune", "head_epochs", head_epochs, least=0)
    epochs = arguments.integer("fine_tune", "epochs", epochs, least=0)
    backbone = _backbone(model, head)
    given = [] if callbacks is None else callbacks
    given = list(given) if isinstance(given, (list, tuple)) else [given]
    phases = _Phases(model, backbone, head_epochs, learning_rate_scale)
    try:
        return model.fit(
            x, y, epochs=head_epochs + epochs, callbacks=[phases, *given], **fit_arguments
        )
    finally:
        phases.thaw()  # where training has ended before the second phase


def _backbone(model: Model, head: Any) -> list[Layer]:
    weighted = [layer for layer in model.layers if layer.weights]
    if head is None:
        chosen = weighted[-1:]
    else:
        names = [head] if isinstance(head, (str, Layer)) else list(head)
        chosen = [model.get_layer(h) if isinstance(h, str) else h for h in names]
    strange = [layer for layer in chosen if all(layer is not other for other in weighted)]
    if strange or not chosen:
        listed = [layer.name for layer in weighted]
        raise arguments.expected("fine_tune", "head", f"layers with weights of {listed}", head)
    backbone = [layer for layer in weighted if all(layer is not other for other in chosen)]
    if not backbone:
        raise arguments.expected("fine_tune", "head", "a part of the model", head)
    return backbone


class _Phases(Callback):
    """Freezes the backbone for the first phase and thaws it before the second."""

    def __init__(self, model: Any, backbone: list[Layer], first: int, scale: float):
        super().__init__()
        self.model, self.first, self.rate = model, first, model.optimizer._rate
        self.frozen = [(part, part.trainable) for layer in backbone for part in _parts(layer)]
        for layer in backbone:
            layer.learning_rate_scale = scale
            layer.trainable = False
        model.forget_engine()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch == self.first:
            self.thaw()

    def thaw(self) -> None:
        if not self.frozen:
            return
        for layer, trainable in self.frozen:
            layer.trainable = trainable
        self.frozen = []
        self.model.optimizer._rate = self.rate
        self.model.forget_engine()


def _parts(layer: Layer) -> list[Layer]:
    """A layer and, if it is a model, all that is in it."""
    inner = layer.layers if isinstance(layer, Model) else []
    return [layer, *(part for child in inner for part in _parts(child))]
