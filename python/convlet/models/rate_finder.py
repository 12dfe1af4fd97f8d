"""lr_find: which learning rates a model learns with."""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from convlet.layers import arguments
from convlet.models.model import Model
from convlet.plotting import new_figure, write
from convlet.utils.seeds import generator


@dataclass(frozen=True)
class RateSearch:
    """What lr_find found.

    Attributes:
        rates: the learning rates that were tried, rising.
        losses: the loss of the batch that was trained with each.
        smoothed: the losses' running average.
        suggestion: the rate at which the loss falls fastest; None when it never falls.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None

    def plot(self, path: Any) -> None:
        """Draws the losses over the rates to a file (.png, .svg, .pdf).

        Raises:
            ImportError: when matplotlib is not installed.
            ValueError: for another ending.
        """
        figure, (axes,) = new_figure("lr_find: plot")
        axes.plot(self.rates, self.losses, color="0.8", label="batch")
        axes.plot(self.rates, self.smoothed, color="C0", label="smoothed")
        if self.suggestion is not None:
            label = f"suggestion {self.suggestion:.2g}"
            axes.axvline(self.suggestion, color="C1", linestyle="--", label=label)
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
        # What diverged would leave no room for the rest.
        axes.set_ylim(0.9 * min(self.smoothed), 1.5 * max(self.smoothed[0], min(self.smoothed)))
        axes.legend()
        write(figure, path, "lr_find: plot")


def lr_find(
    model: Model,
    x: Any,
    y: Any = None,
    *,
    batch_size: int = 32,
    min_rate: float = 1e-6,
    max_rate: float = 1.0,
    steps: int = 100,
    smoothing: float = 0.9,
    divergence: float = 4.0,
) -> RateSearch:
    """Trains on batch after batch with learning rates that rise from min_rate to max_rate, looks
    at the loss, and then puts everything back: weights, momenta and the count of updates are as
    before (Smith 2017, "Cyclical Learning Rates").

    Args:
        model: compiled; its optimizer is tried, from momenta of zero, whatever rate it has.
        x, y, batch_size: as fit takes them. A generator loses the batches that are drawn from it.
        min_rate, max_rate: the range, in steps of one factor.
        steps: how many rates.
        smoothing: m in average = m * average + (1 - m) * loss, corrected for its start at 0.
        divergence: the search ends when the smoothed loss is this many times the smallest one, or
            when the loss is not finite.

    Returns:
        rates, losses, smoothed losses and a suggestion, with ``plot(path)``. The rate to train
        with is often somewhat above the suggestion for a one-time peak (warm-up), and at or below
        it for a constant rate.

    Raises:
        RuntimeError: when the model is not compiled.
        ValueError: for numbers out of their range, and for data that fit would not take.
    """
    model._compiled_for("lr_find")
    steps = arguments.integer("lr_find", "steps", steps, least=2)
    if not 0 < min_rate < max_rate < np.inf:
        raise ValueError(
            f"lr_find: expected 0 < min_rate < max_rate, got {min_rate!r} and {max_rate!r}"
        )
    if not 0 <= smoothing < 1 or not divergence > 1:
        raise ValueError(
            "lr_find: expected smoothing in [0, 1) and divergence > 1, "
            f"got {smoothing!r} and {divergence!r}"
        )
    batches = _endless(model._batches("lr_find", x, y, None, None, batch_size, None), model.seed)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    engine = model._engine()
    with _put_back(engine), _same_epoch(x), closing(batches):
        for rate in np.geomspace(min_rate, max_rate, steps).tolist():
            batch, capacity = next(batches)
            with engine.lock:
                loss = engine.start("train", batch, capacity, rate)()[0]
            if not np.isfinite(loss):
                break
            average = smoothing * average + (1 - smoothing) * float(loss)
            rates.append(rate)
            losses.append(float(loss))
            smoothed.append(average / (1 - smoothing ** len(losses)))
            if smoothed[-1] > divergence * min(smoothed):
                break
    if not rates:
        raise ValueError(f"lr_find: the loss is not finite with the smallest rate, {min_rate!r}")
    return RateSearch(rates, losses, smoothed, _steepest(rates, losses, smoothed))


def _endless(batches: Any, seed: int) -> Generator[Any, None, None]:
    epoch = 0
    while True:
        for batch in batches.epoch(generator(seed, epoch)):
            yield batch, batches.batch_size
        epoch += 1


def _steepest(rates: list[float], losses: list[float], smoothed: list[float]) -> float | None:
    """Where the losses fall fastest over the logarithm of the rate: the middle of the steepest
    least-squares line over a sixth of the curve up to its minimum. A single batch says too little,
    and the running average lags behind."""
    end = int(np.argmin(smoothed)) + 1
    width = max(3, end // 6)
    if end < width:
        return None
    x = np.lib.stride_tricks.sliding_window_view(np.log(rates[:end]), width)
    y = np.lib.stride_tricks.sliding_window_view(np.asarray(losses[:end]), width)
    x = x - x.mean(axis=1, keepdims=True)
    slopes = (x * y).sum(axis=1) / np.square(x).sum(axis=1)
    steepest = int(np.argmin(slopes))
    return rates[steepest + width // 2] if slopes[steepest] < 0 else None


@contextmanager
def _put_back(engine: Any) -> Iterator[None]:
    """Begins with momenta of zero, and restores weights, momenta and counts at the end."""
    with engine.lock:
        engine.claim()
        weights = [p.variable.numpy() for p in engine.parameters]
        slots, batches, averaged = engine.slots(), engine.state.batches, engine.averaged
        engine.set_slots({name: np.zeros_like(slot) for name, slot in slots.items()})
        engine.state.batches, engine.averaged = 0, False
    try:
        yield
    finally:
        with engine.lock:
            for parameter, value in zip(engine.parameters, weights, strict=True):
                parameter.variable.assign(value)
            engine.set_slots(slots)
            engine.state.batches, engine.averaged = batches, averaged


@contextmanager
def _same_epoch(x: Any) -> Iterator[None]:
    """Data that count their passes are at the same one afterwards."""
    epoch = getattr(x, "epoch", None)
    yield
    if isinstance(epoch, int):
        x.epoch = epoch
