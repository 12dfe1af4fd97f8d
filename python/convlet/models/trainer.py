"""Trainer: compile, fit and evaluate of a model."""

import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np

from convlet import _core
from convlet.callbacks import Callback, CallbackList, History, TerminateOnNaN
from convlet.devices import resolve_device
from convlet.layers import arguments
from convlet.models.batches import (
    ArrayBatches,
    Batches,
    IterableBatches,
    balanced,
    check_iterable,
    is_arrays,
    peek,
    split_rows,
)
from convlet.models.compilation import Compilation
from convlet.models.data import Batch, DataAdapter
from convlet.models.datasets import is_dataset, matched, remember
from convlet.models.display import EpochDisplay, verbosity
from convlet.models.engine import Engine, resolve_precision, resolve_winograd
from convlet.models.meter import Meter
from convlet.models.prediction import Predictor
from convlet.models.steps import Steps
from convlet.utils.seeds import generator, next_seed

# Two threads that want the engine of a model at the same time get the same one.
_making = threading.RLock()


class NonFiniteError(ValueError):
    """The loss became NaN or infinite; the weights are as they were before that step."""


class Trainer(Predictor):
    """What a model does with data. It relies on the attributes of Model: inputs, outputs, names of
    the outputs, build_for."""

    def __init__(self) -> None:
        self.seed = next_seed()  # of shuffles, splits and dropout
        self.stop_training = False
        self.history: History | None = None
        self.precision = "float32"
        self.winograd = "inference"
        self.device = resolve_device("auto")
        self._device_was_auto = True
        self._compilation: Compilation | None = None
        self._engine_: Engine | None = None
        self._announced = False

    # Compilation.

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        *,
        device: str = "auto",
        precision: str = "float32",
        winograd: str = "inference",
    ) -> None:
        """Chooses how to train. Momenta and the count of updates start anew; weights stay.

        Args:
            optimizer: a name ("adam") or an object of convlet.optimizers.
            loss: a name, an object of convlet.losses or a function (y_true, y_pred) made of
                convlet.ops; for several outputs a list or a dict by name.
            loss_weights: the factor of each output's loss in the total, as a list or a dict.
            metrics: a list of names, functions or objects of convlet.metrics; for several outputs a
                list of lists or a dict of lists. "accuracy" becomes the accuracy that fits the
                loss.
            device: "auto", "cpu" or "cuda".
            precision: of the products in convolution, dense and matmul kernels, forward and
                backward: "float32", "tf32" (NVIDIA GPUs) or "bfloat16" (mixed). Weights, sums and
                all else are float32; see docs/training.md.
            winograd: where the CPU's float32 kernels may compute 3x3 convolutions by Winograd's
                F(4x4,3x3), faster and with two to three times the rounding error: "never", in
                "inference" (predict and evaluate) or "always", in training too (its forward, and
                the gradient of the input). Other kernels do not heed it; see docs/training.md.

        Raises:
            ValueError: for an unknown name or setting, or a device or precision that cannot be had.
        """
        resolved = resolve_device(device)
        winograd = resolve_winograd(winograd)
        self.precision = resolve_precision(precision, resolved)
        self.winograd = winograd
        self.device, self._device_was_auto = resolved, device == "auto"
        self._compilation = Compilation(optimizer, loss, loss_weights, metrics)
        self._announced = False
        self.forget_engine()
        if self.built:
            self._resolve()

    @property
    def optimizer(self) -> Any:
        """The optimizer; its learning_rate can be set between steps."""
        return None if self._compilation is None else self._compilation.optimizer

    @property
    def metrics_names(self) -> list[str]:
        """The names of what evaluate returns, in order; empty before the model is built."""
        return [] if self._compilation is None else list(self._compilation.keys)

    @property
    def compiled(self) -> bool:
        return self._compilation is not None

    def _resolve(self) -> None:
        assert self._compilation is not None
        self._compilation.resolve(self.output_names, self.outputs, self.owner)

    def forget_engine(self) -> None:
        """Makes the next call build graph, state and plans anew. The weights move along."""
        self._engine_ = None

    def _engine(self) -> Engine:
        with _making:
            compilation = self._compilation
            if compilation is not None and compilation.learned_targets():
                self._engine_ = None
            if self._engine_ is None:
                optimizer = None if compilation is None else compilation.optimizer
                traceable = [] if compilation is None else compilation.traceable
                chosen = (self.device, self.seed, optimizer, traceable, self.precision)
                engine = Engine(self, *chosen, self.winograd)
                if compilation is not None:
                    engine.configure(
                        compilation.optimizer, compilation.loss_specs(), compilation.metric_specs()
                    )
                self._engine_ = engine
            return self._engine_

    def _compiled_for(self, owner: str) -> Compilation:
        if self._compilation is None:
            raise RuntimeError(
                f"{owner}: expected a compiled model: call compile(optimizer, loss) first"
            )
        return self._compilation

    def _adapter(self, owner: str, x: Any) -> DataAdapter:
        """Checks of data for this model, which is built for x if it is not built yet."""
        self.build_for(x, owner)
        self._engine()
        losses = [] if self._compilation is None else self._compilation.losses
        shapes = [tensor.sample_shape for tensor in self.outputs]
        return DataAdapter(owner, self.inputs, self.output_names, shapes, losses)

    def _batches(
        self,
        owner: str,
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Any,
        batch_size: int,
        steps: int | None,
    ) -> Batches:
        batch_size = arguments.integer(
            owner, "batch_size", 32 if batch_size is None else batch_size
        )
        if steps is not None:
            steps = arguments.integer(owner, "steps", steps)
        if isinstance(class_weight, str):
            class_weight = balanced(
                owner, class_weight, getattr(x, "labels", None) if y is None else y
            )
        if is_arrays(x):
            samples = self._adapter(owner, x).samples(x, y, sample_weight, class_weight)
            if len(samples) == 0:
                raise ValueError(f"{owner}: x: expected at least one sample, got none")
            return ArrayBatches(owner, samples, batch_size, None, steps)
        check_iterable(owner, x, "(x, y)")
        if y is not None or sample_weight is not None:
            raise ValueError(f"{owner}: y: expected None when x gives batches (x, y), got data")
        if is_dataset(x):
            x, first = matched(self, x, owner), x.example
        else:
            x, first = peek(x, owner) if not self.built else (x, None)
        adapter = self._adapter(owner, first)
        if is_dataset(x) and owner == "fit":
            remember(self, x)
        return IterableBatches(adapter, x, class_weight, steps)

    # Training.

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[Callback] | Callback | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | str | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> History:
        """Trains for epochs initial_epoch .. epochs - 1.

        Args:
            x: uint8, integer or float arrays (N, ...); a list or dict for several inputs; or an
                iterable of batches (x, y) or (x, y, sample_weight), passed over once an epoch. A
                convlet.data.ImageDataset gives the model its class names and preprocessing; where
                it has some, the labels are aligned by name.
            y: the targets, as the loss wants them; a list or dict for several outputs.
            batch_size: samples per update; the last batch of an epoch may be smaller.
            verbose: 0 silent, 1 a progress bar, 2 a line per epoch, "auto" 1 on a terminal,
                else 2.
            validation_split: this share of the samples is held out: shuffled by the model's seed
                and, for classes, stratified (a departure from Keras, which takes the last ones).
            validation_data: (x, y), (x, y, sample_weight) or an iterable of batches.
            shuffle: a new order each epoch, decided by the model's seed and its count of batches.
            class_weight: {class: factor of the loss of its samples}, 1 for classes not named;
                "balanced" lets every class weigh the same.
            sample_weight: (N,) factors of the samples' losses; a list or dict for several outputs.
            steps_per_epoch: batches in an epoch, for endless iterables.

        Returns:
            The History: ``history`` maps "loss", the metrics and "val_..." of both to a list.

        Raises:
            NonFiniteError: when the loss is NaN or infinite; names epoch, batch and layer.
            ValueError, TypeError: for data that does not fit, before the first step.
        """
        self._compiled_for("fit")
        epochs = arguments.integer("fit", "epochs", epochs, least=0)
        initial_epoch = arguments.integer("fit", "initial_epoch", initial_epoch, least=0)
        validation_freq = arguments.integer("fit", "validation_freq", validation_freq)
        verbose = verbosity("fit", verbose)
        training = self._batches(
            "fit", x, y, sample_weight, class_weight, batch_size, steps_per_epoch
        )
        training, validation = self._with_validation(
            training, validation_split, validation_data, validation_steps, validation_batch_size
        )
        self.history = History()
        every = CallbackList(callbacks, self, {})
        every.callbacks.append(self.history)
        params = {
            "epochs": epochs,
            "steps": training.steps,
            "verbose": verbose,
            "validation": validation is not None,
        }
        for callback in every.callbacks:
            callback.set_model(self)
            callback.set_params(params)

        self.stop_training = False
        if verbose:
            self._announce()
        every.call("on_train_begin", None)
        logs: dict[str, Any] = {}
        try:
            with self._average_in_place():
                for epoch in range(initial_epoch, epochs):
                    every.call("on_epoch_begin", epoch, None)
                    display = EpochDisplay(
                        f"Epoch {epoch + 1}/{epochs}", training.count, training.steps, verbose
                    )
                    try:
                        meter = self._train_epoch(training, shuffle, every, display, epoch)
                        display.passed(meter.count)
                        logs = meter.logs()
                        if validation is not None and (epoch + 1) % validation_freq == 0:
                            logs |= self._test_epoch(validation, every).logs("val_")
                        every.call("on_epoch_end", epoch, logs)
                    except BaseException:
                        display.clear()
                        raise
                    display.finish(logs)
                    if self.stop_training:
                        break
        finally:
            training.close()
            if validation is not None:
                validation.close()
        if self.optimizer.use_ema:
            self._engine().keep_average()
        every.call("on_train_end", logs)
        return self.history

    def _with_validation(
        self, training: Batches, split: float, data: Any, steps: int | None, batch_size: int | None
    ) -> tuple[Batches, Batches | None]:
        """The batches to train on and those to validate with, which a split takes out of the
        former."""
        if isinstance(training, ArrayBatches) and batch_size is None:
            batch_size = training.batch_size
        if data is not None:
            if split:
                raise ValueError("fit: expected validation_split or validation_data, got both")
            whole = isinstance(data, (tuple, list))
            if whole and len(data) not in (2, 3):
                raise ValueError(
                    "fit: validation_data: expected (x, y) or (x, y, sample_weight), "
                    f"got {len(data)} items"
                )
            x, y, weights = (*data, None)[:3] if whole else (data, None, None)
            name = "fit: validation_data"
            return training, self._batches(name, x, y, weights, None, batch_size or 32, steps)
        if not split:
            return training, None
        if not isinstance(training, ArrayBatches):
            raise ValueError(
                "fit: validation_split: expected arrays in x, got an iterable of batches"
            )
        assert self._compilation is not None
        classes = self._compilation.losses[0].loss.kind != "mean_squared_error"
        samples, size = training.samples, training.batch_size
        rows, held = split_rows(samples, split, classes, self.seed)
        limit = training.steps if training.count < len(samples) else None
        return (
            ArrayBatches("fit: steps_per_epoch", samples, size, rows, limit),
            ArrayBatches("fit: validation_steps", samples, batch_size or size, held, steps),
        )

    def _train_epoch(
        self,
        batches: Batches,
        shuffle: bool,
        callbacks: CallbackList,
        display: EpochDisplay,
        epoch: int,
    ) -> Meter:
        engine, compilation = self._engine(), self._compiled_for("fit")
        hooks = callbacks.wants("on_train_batch_end", "on_batch_end")
        begins = callbacks.wants("on_train_batch_begin", "on_batch_begin")
        # The count of batches goes into the key: each epoch has its own order, and a model that was
        # saved and loaded goes on with the order it would have had.
        order = generator(self.seed, engine.state.batches) if shuffle else None
        meter = Meter(compilation)
        steps = Steps(self, "train", meter, waits=hooks or begins)

        def begin(step: int) -> None:
            if begins:
                callbacks.call("on_train_batch_begin", step, None)

        with closing(steps.over(batches, order, begin)) as results:
            for step, result in results:
                if not np.isfinite(result[0]) and callbacks.find(TerminateOnNaN) is None:
                    raise NonFiniteError(self._blame(self._engine(), epoch, step, result[0]))
                if hooks or display.due():
                    logs = meter.logs()
                    if hooks:
                        callbacks.call("on_train_batch_end", step, logs)
                    if display.due():
                        display.update(meter.count, step + 1, logs)
        return meter

    def _blame(self, engine: Engine, epoch: int, step: int, loss: float) -> str:
        where = engine.first_non_finite("train")
        found = (
            f"the first value that is not finite is in {where}"
            if where
            else "all outputs are finite"
        )
        return (
            f"fit: the loss is {loss} in epoch {epoch + 1}, batch {step + 1}; {found}. The weights "
            "are as before that batch; a smaller learning rate or clipnorm may help"
        )

    def _test_epoch(
        self, batches: Batches, callbacks: CallbackList, display: EpochDisplay | None = None
    ) -> Meter:
        meter = Meter(self._compiled_for("evaluate"))
        hooks = callbacks.wants("on_test_batch_end")
        begins = callbacks.wants("on_test_batch_begin")
        steps = Steps(self, "test", meter, waits=hooks or begins)

        def begin(step: int) -> None:
            if begins:
                callbacks.call("on_test_batch_begin", step, None)

        with self._average_in_place():
            callbacks.call("on_test_begin", None)
            with closing(steps.over(batches, None, begin)) as results:
                for step, _ in results:
                    if hooks:
                        callbacks.call("on_test_batch_end", step, meter.logs())
                    if display is not None and display.due():
                        display.update(meter.count, step + 1, meter.logs())
            callbacks.call("on_test_end", meter.logs())
        return meter

    def _announce(self) -> None:
        """Says once what will run where."""
        if self._announced:
            return
        self._announced = True
        chosen = " (chosen by device='auto')" if self._device_was_auto else ""
        what = _core.device_description(self.device, self.precision)
        parts = [
            f"{self.name}: {self.count_params():,} parameters",
            f"on {self.device}{chosen}: {what}",
        ]
        if self.precision != "float32":
            parts.append(f"precision {self.precision}")
        assert self._compilation is not None
        parts += [f"{key} is {meaning}" for key, meaning in self._compilation.meaning.items()]
        print("; ".join(parts), flush=True)

    # Evaluation.

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int = 32,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Sequence[Callback] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics on data, as fit takes it.

        Returns:
            The loss; with metrics a list [loss, metrics...]; with return_dict a dict.
        """
        self._compiled_for("evaluate")
        verbose = verbosity("evaluate", verbose)
        batches = self._batches("evaluate", x, y, sample_weight, None, batch_size, steps)
        params = {"epochs": 1, "steps": batches.steps, "verbose": verbose, "validation": False}
        every = CallbackList(callbacks, self, params)
        display = EpochDisplay("Evaluation", batches.count, batches.steps, verbose)
        try:
            meter = self._test_epoch(batches, every, display)
        except BaseException:
            display.clear()
            raise
        finally:
            batches.close()
        display.passed(meter.count)
        logs = meter.logs()
        display.finish(logs)
        return logs if return_dict else _listed(logs)

    # Single batches.

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One update on the samples of x. Returns their loss and metrics, as evaluate does.

        Raises:
            NonFiniteError: when the loss is not finite; the weights have not changed.
        """
        return self._on_batch("train", x, y, sample_weight, class_weight, return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """The loss and metrics of the samples of x, as evaluate returns them."""
        return self._on_batch("test", x, y, sample_weight, None, return_dict)

    def _on_batch(
        self, mode: str, x: Any, y: Any, sample_weight: Any, class_weight: Any, return_dict: bool
    ) -> Any:
        owner = f"{mode}_on_batch"
        compilation = self._compiled_for(owner)
        samples = self._adapter(owner, x).samples(x, y, sample_weight, class_weight)
        if len(samples) == 0:
            raise ValueError(f"{owner}: x: expected at least one sample, got none")
        meter = Meter(compilation)
        batch = Batch(samples, np.arange(len(samples), dtype=np.int64))
        ((_, result),) = Steps(self, mode, meter, waits=True).take(0, batch, len(samples))
        if mode == "train" and not np.isfinite(result[0]):
            raise NonFiniteError(self._blame(self._engine(), 0, 0, result[0]))
        logs = meter.logs()
        return logs if return_dict else _listed(logs)


def _listed(logs: dict[str, Any]) -> Any:
    values = list(logs.values())
    return values[0] if len(values) == 1 else values
