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
        # By loss, where labels are missing: the sum of the losses times the samples that have
        # labels, and how many these are.
        self._labelled: Any = None
        for metric in compilation.metrics:
            metric.metric.reset_state()

    def update(
        self, result: NDArray[np.float64], samples: Samples, rows: Rows, output: Any
    ) -> None:
        """Takes in a batch; ``output(i)`` gives the model's output i for it (None: the metrics that
        see outputs do not get it)."""
        self.count += len(rows)
        self._sums = self._sums + result * len(rows)
        if self._labelled is not None or any(kept is not None for kept in samples.kept):
            self._add_labelled(result, samples, rows)
        outputs: dict[int, Any] = {}
        for metric in self.compilation.observed if output is not None else []:
            i = metric.output
            if i not in outputs:
                outputs[i] = output(i)
            target = self._target(i)
            truth, scores, known = samples.truths[target][rows], outputs[i], ()
            kept = samples.kept[target]
            if kept is not None:
                truth, scores = truth[kept[rows]], scores[kept[rows]]
                missing = np.isnan(truth)
                if missing.any():
                    truth, known = np.where(missing, 0, truth), (~missing,)
            if len(truth):
                metric.metric.update_state(truth, scores, *known)

    def _add_labelled(self, result: NDArray[np.float64], samples: Samples, rows: Rows) -> None:
        losses = result[1 : 1 + len(samples.kept)]
        if self._labelled is None:  # the batches before had all their labels
            before = np.atleast_1d(self._sums)[1 : 1 + len(losses)] - losses * len(rows)
            self._labelled = np.array([before, np.full(len(losses), self.count - len(rows))])
        counts = [
            len(rows) if kept is None else np.count_nonzero(kept[rows]) for kept in samples.kept
        ]
        self._labelled += [losses * counts, counts]

    def _target(self, output: int) -> int:
        return [loss.output for loss in self.compilation.losses].index(output)

    def logs(self, prefix: str = "") -> dict[str, Any]:
        """The means so far, by the keys of the compilation."""
        means = np.asarray(self._sums, np.float64).ravel() / max(1, self.count)
        native = self.compilation.native
        first_metric = 1 + len(self.compilation.losses)
        if means.size != first_metric + len(native):
            means = np.zeros(first_metric + len(native))
        if self._labelled is not None:
            # The mean over the samples that have labels, for each loss and in the total.
            over_all = means[1:first_metric].copy()
            means[1:first_metric] = self._labelled[0] / np.maximum(1, self._labelled[1])
            weights = [loss.weight for loss in self.compilation.losses]
            means[0] += np.dot(weights, means[1:first_metric] - over_all)
        values: dict[str, Any] = {"loss": float(means[0])}
        for key, mean in zip(self.compilation.loss_keys, means[1:first_metric], strict=False):
            values[key] = float(mean)
        for metric, mean in zip(native, means[first_metric:], strict=True):
            values[metric.key] = float(mean)
            if isinstance(metric.metric, MeanMetric):  # for callers that ask the object itself
                metric.metric.total, metric.metric.count = float(mean) * self.count, self.count
        values |= {metric.key: metric.metric.result() for metric in self.compilation.observed}
        return {prefix + key: values[key] for key in self.compilation.keys}
