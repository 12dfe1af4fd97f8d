"""Meter: the running loss and metrics of an epoch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.metrics import MeanMetric
from convlet.models.compilation import Compilation
from convlet.models.data import Rows, Samples


class Meter:
    """Averages what a plan returns for each batch, weighted by the samples in it, and feeds the
    metrics that see outputs."""

    def __init__(self, compilation: Compilation):
        self.compilation = compilation
        self.count = 0
        self._sums: Any = 0.0
        for metric in compilation.metrics:
            metric.metric.reset_state()

    def update(
        self, result: NDArray[np.float64], samples: Samples, rows: Rows, output: Any
    ) -> None:
        """Takes in a batch; ``output(i)`` gives the model's output i for it."""
        self.count += len(rows)
        self._sums = self._sums + result * len(rows)
        outputs: dict[int, Any] = {}
        for metric in self.compilation.observed:
            i = metric.output
            if i not in outputs:
                outputs[i] = output(i)
            metric.metric.update_state(samples.truths[self._target(i)][rows], outputs[i])

    def _target(self, output: int) -> int:
        return [loss.output for loss in self.compilation.losses].index(output)

    def logs(self, prefix: str = "") -> dict[str, Any]:
        """The means so far, by the keys of the compilation."""
        means = np.asarray(self._sums, np.float64).ravel() / max(1, self.count)
        native = self.compilation.native
        first_metric = 1 + len(self.compilation.losses)
        if means.size != first_metric + len(native):
            means = np.zeros(first_metric + len(native))
        values: dict[str, Any] = {"loss": float(means[0])}
        for key, mean in zip(self.compilation.loss_keys, means[1:first_metric], strict=False):
            values[key] = float(mean)
        for metric, mean in zip(native, means[first_metric:], strict=True):
            values[metric.key] = float(mean)
            if isinstance(metric.metric, MeanMetric):  # for callers that ask the object itself
                metric.metric.total, metric.metric.count = float(mean) * self.count, self.count
        values |= {metric.key: metric.metric.result() for metric in self.compilation.observed}
        return {prefix + key: values[key] for key in self.compilation.keys}
