"""Predictor: the outputs of a model for data without targets."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.callbacks import Callback, CallbackList
from convlet.layers import arguments
from convlet.models.batches import check_iterable, is_arrays, open_pass, step_limit
from convlet.models.data import input_arrays
from convlet.models.datasets import is_dataset, matched
from convlet.models.display import EpochDisplay, verbosity
from convlet.models.structure import pack

Arrays = list[NDArray[Any]]


class Predictor:
    """predict of a model. It relies on the attributes of Model and on Trainer's engine."""

    inputs: Any
    outputs: Any
    output_structure: Any
    build_for: Any
    _engine: Any
    _engine_: Any

    def predict(
        self,
        x: Any,
        batch_size: int = 32,
        verbose: str | int = 0,
        steps: int | None = None,
        callbacks: Sequence[Callback] | None = None,
    ) -> Any:
        """The outputs for x, in inference mode (no dropout).

        Args:
            x: arrays as in fit, or an iterable of batches x or (x, ...). Of an ImageDataset, the
                images in the order of its file_paths, without augmentation.
            batch_size: samples at a time; larger batches of an iterable are cut.
            verbose: 0 silent, 1 a progress bar, 2 a line at the end, "auto" 1 on a terminal,
                else 2.
            steps: batches to take; None for all there are.
            callbacks: their on_predict_... methods are called; the logs at a batch's end are
                {"outputs": its outputs}.

        Returns:
            float32 (N, ...); a list or dict of arrays for several outputs. N = 0 gives (0, ...).

        Raises:
            ValueError, TypeError: for data that does not fit, or fewer batches than ``steps``.
        """
        batch_size = arguments.integer(
            "predict", "batch_size", 32 if batch_size is None else batch_size
        )
        if steps is not None:
            steps = arguments.integer("predict", "steps", steps)
        verbose = verbosity("predict", verbose)
        if is_arrays(x):
            arrays = self._predict_inputs(x)
            count = len(arrays[0])
            steps = step_limit("predict: steps", count, batch_size, steps)
            arrays = [array[: steps * batch_size] for array in arrays]
            total: int | None = min(count, steps * batch_size)
        else:
            check_iterable("predict", x, "batches")
            if is_dataset(x):
                x = matched(self, x, "predict").in_order()
            total = None
        expected = steps if steps is not None or not hasattr(x, "__len__") else len(x)
        every = CallbackList(callbacks, self, {"verbose": verbose, "steps": expected})
        display = EpochDisplay("Prediction", total, expected, verbose)
        done = _Pass(self, batch_size, every, display)
        try:
            with self._average_in_place():
                every.call("on_predict_begin", None)
                whole = total is not None
                outputs = done.over_arrays(arrays) if whole else done.over_iterable(x, steps)
                every.call("on_predict_end", None)
        except BaseException:
            display.clear()
            raise
        display.passed(done.samples)
        display.finish({})
        return pack(outputs, self.output_structure)

    def predict_on_batch(self, x: Any) -> Any:
        """predict of all of x, arrays, as one batch: the shortest way to the outputs."""
        inputs = self._predict_inputs(x)
        return pack(self._engine().predict_batch(inputs), self.output_structure)

    @contextmanager
    def _average_in_place(self) -> Iterator[None]:
        """After an exception weights and average are where they were: the hook at which
        SwapEMAWeights would have put them there does not come."""
        averaged = self._engine_ is not None and self._engine_.averaged
        try:
            yield
        except BaseException:
            if self._engine_ is not None:
                self._engine_.use_average(averaged)
            raise

    def _predict_inputs(self, x: Any) -> Arrays:
        self.build_for(x, "predict")
        return input_arrays("predict", self.inputs, x)


class _Pass:
    """A pass over data that collects outputs; what is called and shown on the way."""

    def __init__(self, model: Any, batch_size: int, callbacks: CallbackList, display: EpochDisplay):
        self.model, self.batch_size = model, batch_size
        self.callbacks, self.display = callbacks, display
        self.waits = callbacks.wants("on_predict_batch_begin", "on_predict_batch_end")
        self.samples = self.batches = 0

    def over_arrays(self, inputs: Arrays) -> Arrays:
        engine, count = self.model._engine(), len(inputs[0])
        if count <= self.batch_size:
            self._begin()
            whole: Arrays = engine.predict_batch(inputs)
            self._end(whole, count)
            return whole
        outputs = [np.empty((count, *t.sample_shape), np.float32) for t in self.model.outputs]
        begin = self._begin if self.waits else None
        with closing(engine.predict(inputs, outputs, self.batch_size, begin)) as parts:
            for rows in parts:
                self._end([output[rows] for output in outputs], rows.stop - rows.start)
        return outputs

    def over_iterable(self, x: Any, steps: int | None) -> Arrays:
        iterator, close = open_pass(x)
        parts: list[Arrays] = []
        try:
            for batch in islice(iterator, steps):
                inputs = batch[0] if isinstance(batch, tuple) else batch
                parts.append(self.over_arrays(self.model._predict_inputs(inputs)))
        finally:
            close()
        if not parts or (steps is not None and len(parts) < steps):
            wanted = "at least one batch" if steps is None else f"{steps} batches"
            raise ValueError(f"predict: x: expected {wanted}, got {len(parts) or 'none'}")
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]

    def _begin(self) -> None:
        if self.waits:
            self.callbacks.call("on_predict_batch_begin", self.batches, None)

    def _end(self, outputs: Arrays, samples: int) -> None:
        if self.waits:
            self.callbacks.call("on_predict_batch_end", self.batches, {"outputs": outputs})
        self.batches += 1
        self.samples += samples
        if self.display.due():
            self.display.update(self.samples, self.batches, {})
