"""Callbacks: what happens between the steps and epochs of fit, with Keras' names and arguments."""

import csv
import inspect
import math
from collections.abc import Callable as Function
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from convlet.progress import format_value

Logs = dict[str, Any]


class Callback:
    """Base: override what you need.

    Attributes:
        model: the model in training.
        params: {"epochs", "steps", "verbose", "validation"}: steps is None when unknown, validation
            whether there is validation data.

    ``logs`` holds "loss" and the metrics so far; on_epoch_end also has those of the validation
    ("val_loss"). What a callback adds to them there, the later ones and the History see.
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


class Monitor(Callback):
    """Base of the callbacks that watch one value of the logs.

    mode: "min", "max", or "auto": max for accuracies, precision, recall, F1 and AUC, min for losses
        and errors.
    """

    def __init__(self, monitor: str, mode: str = "auto", min_delta: float = 0.0):
        super().__init__()
        self.owner = type(self).__name__
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{self.owner}: mode: expected 'auto', 'min' or 'max', got {mode!r}")
        self.monitor, self.mode = monitor, mode
        self.min_delta = abs(float(min_delta))

    @property
    def largest_is_best(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.lower()
        if any(part in name for part in ("loss", "error", "mse", "mae")):
            return False
        if any(part in name for part in ("acc", "auc", "precision", "recall", "f1", "top_k")):
            return True
        raise ValueError(
            f"{self.owner}: mode: expected 'min' or 'max' for {self.monitor!r}, whose direction "
            "its name does not tell"
        )

    @property
    def worst(self) -> float:
        return -math.inf if self.largest_is_best else math.inf

    def improves(self, value: float, best: float) -> bool:
        """Whether ``value`` is better than ``best`` by more than min_delta."""
        if self.largest_is_best:
            return value - self.min_delta > best
        return value + self.min_delta < best

    def value(self, logs: Logs | None) -> float | None:
        """The watched value; None in an epoch without validation. ValueError when it will never
        come."""
        logs = logs or {}
        if self.monitor in logs:
            return float(logs[self.monitor])
        if self.monitor.startswith("val_") and self.params.get("validation"):
            return None
        raise ValueError(
            f"{self.owner}: monitor: expected one of {sorted(logs)}, got {self.monitor!r}"
            + ("" if self.params.get("validation") else "; there is no validation data")
        )


class EarlyStopping(Monitor):
    """Stops training when the watched value has not improved for ``patience`` epochs.

    Args:
        monitor: the watched value.
        min_delta: smaller changes are no improvement.
        patience: epochs without improvement to wait for.
        mode: see Monitor.
        baseline: a value to be better than.
        restore_best_weights: go back to the weights of the best epoch at the end.
        start_from_epoch: epochs before this one are not looked at.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.stopped_epoch = self.best_epoch = self.wait = 0
        self.best: float | None = None
        self.best_weights: list[Any] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best = self.worst
        self.best_weights = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        current = self.value(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.improves(current, self.best):
            self.best, self.best_epoch = current, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.improves(current, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch > 0 and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                print(f"Restoring the weights of the best epoch, {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(Monitor):
    """Saves the model after epochs.

    Args:
        filepath: may hold {epoch} (from 1) and names of the logs:
        "model-{epoch:02d}-{val_loss:.2f}.safetensors". save_best_only: only when the watched value
        is the best so far. save_weights_only: weights without architecture and optimizer.
        save_freq: "epoch", or a number of batches.
        initial_value_threshold: a value to be better than from the start.
    """

    def __init__(
        self,
        filepath: str | Path,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ):
        super().__init__(monitor, mode)
        from convlet.models.saving import check_path

        self.filepath = str(filepath)
        check_path(self.filepath, "ModelCheckpoint: filepath")
        if save_freq != "epoch" and (isinstance(save_freq, (bool, str)) or not save_freq >= 1):
            raise ValueError(
                "ModelCheckpoint: save_freq: expected 'epoch' or a positive integer, "
                f"got {save_freq!r}"
            )
        self.verbose, self.save_best_only = verbose, save_best_only
        self.save_weights_only, self.save_freq = save_weights_only, save_freq
        self.best = initial_value_threshold
        self._batches, self._epoch = 0, 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.save_freq != "epoch":
            self._batches += 1
            if self._batches >= int(self.save_freq):
                self._batches = 0
                self._save(self._epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, logs)

    def _save(self, epoch: int, logs: Logs | None) -> None:
        if self.save_best_only:
            current = self.value(logs)
            best = self.worst if self.best is None else self.best
            if current is None or not self.improves(current, best):
                return
            self.best = current
        try:
            path = self.filepath.format(epoch=epoch + 1, **(logs or {}))
        except KeyError as error:
            raise ValueError(
                f"ModelCheckpoint: filepath: expected 'epoch' or a name of {sorted(logs or {})}, "
                f"got {error.args[0]!r} in {self.filepath!r}"
            ) from None
        if self.verbose:
            print(f"Epoch {epoch + 1}: saving the model to {path}")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by ``factor`` when the watched value has not improved for
    ``patience`` epochs; after that it waits ``cooldown`` epochs, and never goes below ``min_lr``.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise ValueError(
                f"ReduceLROnPlateau: factor: expected a number in (0, 1), got {factor!r}"
            )
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr
        self.wait = self.cooldown_counter = 0
        self.best: float | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.wait = self.cooldown_counter = 0
        self.best = self.worst

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer = self.model.optimizer
        rate = optimizer.learning_rate
        if logs is not None:
            logs["learning_rate"] = rate
        current = self.value(logs)
        if current is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improves(current, self.best):
            self.best, self.wait = current, 0
        elif self.cooldown_counter <= 0:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                optimizer.learning_rate = max(rate * self.factor, self.min_lr)
                if self.verbose:
                    print(
                        f"Epoch {epoch + 1}: the learning rate goes down to "
                        f"{format_value(optimizer.learning_rate)}"
                    )
                self.cooldown_counter, self.wait = self.cooldown, 0


class LearningRateScheduler(Callback):
    """Before each epoch sets the learning rate to schedule(epoch, learning_rate), or
    schedule(epoch)."""

    def __init__(self, schedule: Function[..., float], verbose: int = 0):
        super().__init__()
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer = self.model.optimizer
        arguments = (epoch, optimizer.learning_rate)
        try:
            inspect.signature(self.schedule).bind(*arguments)
        except TypeError:
            arguments = (epoch,)
        rate = self.schedule(*arguments)
        if not isinstance(rate, (float, int, np.number)) or isinstance(rate, bool):
            raise ValueError(
                f"LearningRateScheduler: expected a number from schedule, got {rate!r}"
            )
        optimizer.learning_rate = float(rate)
        if self.verbose:
            print(f"Epoch {epoch + 1}: the learning rate is {format_value(rate)}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.learning_rate


class CSVLogger(Callback):
    """Writes a line per epoch: epoch (from 0) and the logs, with a header. The columns are those of
    the first epoch and of the validation.

    Args:
        append: adds to an existing file.
    """

    def __init__(self, filename: str | Path, separator: str = ",", append: bool = False):
        super().__init__()
        self.filename, self.separator, self.append = str(filename), separator, append
        self._file: TextIO | None = None
        self._writer: Any = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        path = Path(self.filename)
        header = not (self.append and path.exists() and path.stat().st_size)
        self._file = path.open("a" if self.append else "w", newline="", encoding="utf-8")
        self._header, self._writer = header, None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        assert self._file is not None
        logs = logs or {}
        if self._writer is None:
            keys = sorted(logs)
            if self.params.get("validation") and not any(k.startswith("val_") for k in keys):
                keys += [f"val_{key}" for key in keys]
            self._writer = csv.DictWriter(
                self._file,
                ["epoch", *keys],
                restval="NA",
                extrasaction="ignore",
                delimiter=self.separator,
            )
            if self._header:
                self._writer.writeheader()
        row = {key: value.tolist() if np.ndim(value) else value for key, value in logs.items()}
        self._writer.writerow({"epoch": epoch} | row)
        self._file.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class TerminateOnNaN(Callback):
    """With it fit ends quietly, instead of with a NonFiniteError, when the loss is not finite. The
    weights stay as they were before that step either way."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            print(f"Batch {batch}: the loss is {loss}, training ends")
            self.model.stop_training = True


class SwapEMAWeights(Callback):
    """Evaluates and predicts with the running average of the weights, which an optimizer with
    use_ema=True keeps: weights and average change places for the time of a validation or an
    evaluate or predict that is given this callback.

    Args:
        swap_on_epoch: they change places at the end of each epoch already, before the callbacks
            that come after this one, and back at the start of the next: a ModelCheckpoint then
            saves a model that predicts with the averaged weights.
    """

    def __init__(self, swap_on_epoch: bool = False):
        super().__init__()
        self.swap_on_epoch = bool(swap_on_epoch)

    def _swap(self, wanted: bool) -> None:
        optimizer = self.model.optimizer
        if optimizer is None or not optimizer.use_ema:
            raise ValueError(
                "SwapEMAWeights: expected a model whose optimizer has use_ema=True, got "
                f"{optimizer if optimizer is None else optimizer.name}"
            )
        self.model._engine().use_average(wanted)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._swap(False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.swap_on_epoch:
            self._swap(True)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._swap(True)

    def on_test_end(self, logs: Logs | None = None) -> None:
        self._swap(False)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._swap(True)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._swap(False)


class LambdaCallback(Callback):
    """A callback from functions: LambdaCallback(on_epoch_end=lambda epoch, logs: ...)."""

    def __init__(
        self,
        on_epoch_begin: Function[..., Any] | None = None,
        on_epoch_end: Function[..., Any] | None = None,
        on_train_begin: Function[..., Any] | None = None,
        on_train_end: Function[..., Any] | None = None,
        on_train_batch_begin: Function[..., Any] | None = None,
        on_train_batch_end: Function[..., Any] | None = None,
        **others: Function[..., Any],
    ):
        super().__init__()
        hooks = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **others,
        }
        for name, function in hooks.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                raise TypeError(f"LambdaCallback: unexpected argument {name!r}")
            if function is not None:
                setattr(self, name, function)


__all__: Sequence[str] = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "SwapEMAWeights",
    "TerminateOnNaN",
]
