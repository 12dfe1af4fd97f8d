"""Callback, the list that calls them, and the History that fit returns."""

from typing import Any

Logs = dict[str, Any]


class Callback:
    """Base: override what you need.

    Attributes:
        model: the model in training.
        params: {"epochs", "steps", "verbose", "validation"}: steps is None when unknown, validation
            whether there is validation data.

    ``logs`` holds "loss" and the metrics so far; on_epoch_end also has those of the validation
    ("val_loss"). What a callback adds to them there, the later ones and the History see.

    A GPU works up to two batches ahead of Python, except where a callback has a method for batches:
    then each batch is waited for.
    """

    def __init__(self) -> None:
        self.model: Any = None
        self.params: dict[str, Any] = {}

    def set_model(self, model: Any) -> None:
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None: ...
    def on_train_end(self, logs: Logs | None = None) -> None: ...
    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None: ...
    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None: ...
    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.on_batch_end(batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None: ...
    def on_test_end(self, logs: Logs | None = None) -> None: ...
    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_predict_begin(self, logs: Logs | None = None) -> None: ...
    def on_predict_end(self, logs: Logs | None = None) -> None: ...
    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...


class CallbackList:
    """Calls the hooks of several callbacks in turn."""

    def __init__(self, callbacks: Any, model: Any, params: dict[str, Any]):
        given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        self.callbacks: list[Any] = [] if callbacks is None else list(given)
        for callback in self.callbacks:
            if not hasattr(callback, "on_epoch_end"):
                raise ValueError(
                    f"callbacks: expected objects of convlet.callbacks.Callback, got {callback!r}"
                )
            callback.set_model(model)
            callback.set_params(params)

    def call(self, hook: str, *arguments: Any) -> None:
        """Calls ``hook`` of every callback."""
        for callback in self.callbacks:
            getattr(callback, hook)(*arguments)

    def wants(self, *hooks: str) -> bool:
        """Whether some callback does something at one of these hooks, so that its logs are
        needed."""
        return any(
            getattr(type(callback), hook, None) is not getattr(Callback, hook)
            or hook in vars(callback)
            for callback in self.callbacks
            for hook in hooks
        )

    def find(self, cls: type) -> Any:
        """The first callback of a class, or None."""
        return next((c for c in self.callbacks if isinstance(c, cls)), None)


class History(Callback):
    """The logs of each epoch: ``history`` maps a name to a list, ``epoch`` lists the epochs. fit
    returns one. It outlives its model, so it does not hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def plot(self, path: Any) -> None:
        """Draws the curves to a file (.png, .svg, .pdf): a panel for the loss and for each metric,
        with training and validation in it.

        Raises:
            ImportError: when matplotlib is not installed.
            ValueError: when there is no epoch to draw, or for another ending.
        """
        from convlet.plotting import new_figure, write

        keys = [key for key in self.history if not key.startswith("val_")]
        if not keys or not self.epoch:
            raise ValueError("History: plot: expected at least one epoch, got none")
        figure, panels = new_figure("History: plot", len(keys))
        for key, axes in zip(keys, panels, strict=True):
            for name, label in ((key, "training"), (f"val_{key}", "validation")):
                values = self.history.get(name, [])
                # With validation_freq there are fewer values than epochs.
                every = max(1, len(self.epoch) // max(1, len(values)))
                epochs = [epoch + 1 for epoch in self.epoch[every - 1 :: every]]
                if values:
                    axes.plot(epochs[: len(values)], values, marker=".", label=label)
            axes.set(title=key, xlabel="epoch")
            axes.legend()
        write(figure, path, "History: plot")

    def set_model(self, model: Any) -> None:
        pass

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for key, value in (logs or {}).items():
            self.history.setdefault(key, []).append(value)
