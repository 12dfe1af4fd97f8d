"""Callbacks that watch one value of the logs."""

import math
from pathlib import Path
from typing import Any

from convlet.callbacks.base import Callback, Logs
from convlet.progress import format_value
from convlet.utils.files import model_path


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
        self.filepath = str(filepath)
        model_path(self.filepath, "ModelCheckpoint: filepath")
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
