"""Learning rates that depend on the step: the number of updates made so far."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any


class LearningRateSchedule:
    """Base: ``schedule(step) -> float``, and get_config so that it can be saved."""

    def __call__(self, step: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(step)")

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))


class ExponentialDecay(LearningRateSchedule):
    """initial_learning_rate * decay_rate ** (step / decay_steps); with staircase the exponent is
    rounded down."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
    ):
        self.initial_learning_rate = _rate("ExponentialDecay", initial_learning_rate)
        self.decay_steps = _steps("ExponentialDecay", decay_steps)
        self.decay_rate = float(decay_rate)
        self.staircase = bool(staircase)

    def __call__(self, step: int) -> float:
        exponent = step / self.decay_steps
        if self.staircase:
            exponent = math.floor(exponent)
        return self.initial_learning_rate * self.decay_rate**exponent


class PiecewiseConstantDecay(LearningRateSchedule):
    """values[i] while step <= boundaries[i], then values[-1]; one value more than boundaries."""

    def __init__(self, boundaries: Sequence[int], values: Sequence[float]):
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                "PiecewiseConstantDecay: values: expected one more than the "
                f"{len(boundaries)} boundaries, got {len(values)}"
            )
        if any(b <= a for a, b in pairwise(boundaries)):
            raise ValueError(
                f"PiecewiseConstantDecay: boundaries: expected rising steps, got {list(boundaries)}"
            )
        self.boundaries = [int(b) for b in boundaries]
        self.values = [_rate("PiecewiseConstantDecay", v) for v in values]

    def __call__(self, step: int) -> float:
        for boundary, value in zip(self.boundaries, self.values, strict=False):
            if step <= boundary:
                return value
        return self.values[-1]


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate to alpha times it over decay_steps; with warm-up the rate
    first rises in a line from the initial rate to warmup_target over warmup_steps, and falls from
    there."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ):
        self.initial_learning_rate = _rate("CosineDecay", initial_learning_rate)
        self.decay_steps = _steps("CosineDecay", decay_steps)
        self.alpha = float(alpha)
        self.warmup_target = None if warmup_target is None else _rate("CosineDecay", warmup_target)
        self.warmup_steps = int(warmup_steps)

    def __call__(self, step: int) -> float:
        peak = self.initial_learning_rate
        if self.warmup_target is not None:
            peak = self.warmup_target
            if step < self.warmup_steps:
                share = step / self.warmup_steps
                return self.initial_learning_rate + share * (peak - self.initial_learning_rate)
            step -= self.warmup_steps
        progress = min(step, self.decay_steps) / self.decay_steps
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return peak * ((1 - self.alpha) * cosine + self.alpha)


def _rate(owner: str, value: float) -> float:
    if isinstance(value, bool) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{owner}: expected a learning rate >= 0, got {value!r}")
    return float(value)


def _steps(owner: str, value: int) -> int:
    if isinstance(value, bool) or not value > 0:
        raise ValueError(f"{owner}: decay_steps: expected a positive integer, got {value!r}")
    return int(value)


NAMES: dict[str, type[LearningRateSchedule]] = {
    cls.__name__: cls for cls in (CosineDecay, ExponentialDecay, PiecewiseConstantDecay)
}
