"""Steps: the steps of an epoch, and how far the host runs ahead of the device."""

from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.models.batches import Batches
from convlet.models.data import Batch
from convlet.models.meter import Meter

# Results of steps, each with the number of its step: [total, losses..., metrics...].
Results = list[tuple[int, NDArray[np.float64]]]


class Steps:
    """Starts steps and takes their results into a meter: each at once or, on a device that works
    while the host goes on, when ``engine.ahead`` later ones have been started.

    Args:
        trainer: whose engine runs the steps, with the rate of its optimizer.
        mode: "train" or "test".
        waits: whether each result is wanted before the next step starts. Metrics that see outputs
            wait too.
    """

    def __init__(self, trainer: Any, mode: str, meter: Meter, waits: bool):
        self.trainer, self.mode, self.meter = trainer, mode, meter
        self.waits = waits or bool(meter.compilation.observed)
        self._running: deque[tuple[Any, int, Batch, Callable[[], Any]]] = deque()

    def over(
        self,
        batches: Batches,
        order: np.random.Generator | None,
        begin: Callable[[int], None],
    ) -> Generator[tuple[int, NDArray[np.float64]], None, None]:
        """The results of an epoch; ``begin`` is called before each step. A train step whose total
        is not finite has changed nothing, and those after it have not happened."""
        with closing(batches.epoch(order)) as epoch:
            try:
                for step, batch in enumerate(epoch):
                    begin(step)
                    yield from self.take(step, batch, batches.batch_size)
                    if self.mode == "train" and self.trainer.stop_training:
                        break
                yield from self._finish(0)
            finally:
                self._abandon()

    def take(self, step: int, batch: Batch, capacity: int) -> Results:
        """Starts a step; returns the results of those that are far enough back."""
        engine, optimizer = self.trainer._engine(), self.trainer.optimizer
        done: Results = []
        with engine.lock:
            if self._running and not (
                self._running[-1][0] is engine
                and engine.capacity(self.mode) >= max(capacity, len(batch.rows))
            ):
                done = self._finish(0)  # before their plan goes
                if done and self._refused(done[-1][1]):
                    return done
            rate = optimizer.learning_rate if self.mode == "train" else 0.0
            finish = engine.start(self.mode, batch, capacity, rate)
            self._running.append((engine, step, batch, finish))
            averages = self.mode == "train" and optimizer.average_is_due(engine.state.batches)
            done += self._finish(0 if self.waits or averages else engine.ahead)
            if self.mode == "train" and optimizer.average_is_due(engine.state.batches):
                engine.keep_average()
        return done

    def _refused(self, result: NDArray[np.float64]) -> bool:
        return self.mode == "train" and not np.isfinite(result[0])

    def _finish(self, left: int) -> Results:
        done: Results = []
        while len(self._running) > left:
            engine, step, batch, finish = self._running.popleft()
            result = finish()
            if not len(result):
                raise ValueError(
                    "fit: a step of another thread had a loss that is not finite, and this one has "
                    "not happened"
                )
            # Metrics need not bear the outputs of a step that is about to be refused.
            refused = self._refused(result)
            output = None if refused else partial(engine.output, self.mode)
            self.meter.update(result, batch.samples, batch.rows, output)
            done.append((step, result))
            if refused:
                self._running.clear()
        return done

    def _abandon(self) -> None:
        """Nobody wants the results any more."""
        while self._running:
            self._running.popleft()[-1]()
