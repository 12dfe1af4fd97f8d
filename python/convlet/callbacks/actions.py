"""Callbacks that do something at fixed moments."""

import csv
import inspect
import math
from collections.abc import Callable as Function
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from convlet.callbacks.base import Callback, Logs
from convlet.progress import format_value


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
    evaluate or predict that is given this callback, also where that ends by an exception or Ctrl-C.

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
