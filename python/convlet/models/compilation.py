"""What compile() was told, matched to a model's outputs."""

import warnings
from dataclasses import dataclass
from typing import Any

from convlet import losses, metrics, optimizers
from convlet.layers.base import SymbolicTensor
from convlet.losses import Loss
from convlet.metrics import Metric
from convlet.models.network import UNKNOWN, final_activation
from convlet.models.structure import flatten


@dataclass
class OutputLoss:
    """The loss of one output. ``target_shape``: of a sample's targets for a loss of the user's, not
    known before the first data."""

    output: int
    loss: Loss
    weight: float
    target_shape: tuple[int, ...] | None = None

    def learn_shape(self, shape: tuple[int, ...], owner: str) -> None:
        """Takes the shape of the targets of a loss of the user's; ValueError when it has changed
        since ``compile``."""
        if not self.loss.traced:
            return
        if self.target_shape not in (None, shape):
            raise ValueError(
                f"{owner}: expected targets of shape {(None, *self.target_shape)} for "
                f"{self.loss.name}, as in the data before, got {(None, *shape)}"
            )
        self.target_shape = shape


@dataclass
class OutputMetric:
    """A metric of one output. ``native``: the plan computes it."""

    output: int
    key: str  # in the logs
    metric: Metric
    native: bool
    request: Any  # as given to compile


class Compilation:
    """Optimizer, losses and metrics of a model.

    Attributes:
        losses: one OutputLoss per output that has a loss, in the order of the outputs.
        native, observed: the metrics that the plan computes, and those that see its outputs.
        keys: the logs in order: "loss", for several outputs loss_keys ("<output>_loss"), the
            metrics.
        meaning: which accuracy each "accuracy" became, for people.
    """

    def __init__(self, optimizer: Any, loss: Any, loss_weights: Any, requested_metrics: Any):
        self.optimizer = optimizers.get(optimizer)
        self.requested = (loss, loss_weights, requested_metrics)
        if loss is not None:
            for leaf in flatten(loss)[0]:
                if leaf is not None:
                    losses.get(leaf)  # a wrong name is an error at compile, not at the first batch
        self.losses: list[OutputLoss] = []
        self._traceable = 0
        self.metrics: list[OutputMetric] = []
        self.meaning: dict[str, str] = {}
        self.keys: list[str] = []

    def resolve(self, names: list[str], outputs: list[SymbolicTensor], owner: str) -> None:
        """Matches losses and metrics to the outputs of a model."""
        loss, loss_weights, _ = self.requested
        chosen = _per_output(loss, names, "loss", owner, broadcast=True)
        weights = _per_output(loss_weights, names, "loss_weights", owner)
        if loss is None or all(choice is None for choice in chosen):
            raise ValueError(f"{owner}: compile: loss: expected a loss, got {loss!r}")
        self.losses = [
            OutputLoss(i, losses.get(choice), _weight(weight, owner))
            for i, (choice, weight) in enumerate(zip(chosen, weights, strict=True))
            if choice is not None
        ]
        for output_loss in self.losses:
            check_probabilities(output_loss.loss, outputs[output_loss.output], owner)
        self._outputs = (names, outputs, owner)
        self._traceable = 0
        self._resolve_metrics()

    def learned_targets(self) -> bool:
        """Whether data has told the targets of a loss of the user's since the last call; if so the
        metrics are chosen anew, as "accuracy" depends on them."""
        if len(self.traceable) == self._traceable:
            return False
        self._traceable = len(self.traceable)
        self._resolve_metrics()
        return True

    def _resolve_metrics(self) -> None:
        names, outputs, owner = self._outputs
        requested_metrics = self.requested[2]
        self.metrics, self.meaning = [], {}
        of_output = {output_loss.output: output_loss for output_loss in self.losses}
        several = len(names) > 1
        for i, requests in enumerate(_metrics_per_output(requested_metrics, names, owner)):
            for request in requests:
                if i not in of_output:
                    raise ValueError(
                        f"{owner}: compile: metrics: output {names[i]!r} has metrics but no loss, "
                        "so it has no targets to compare with"
                    )
                self._add_metric(request, of_output[i], outputs[i], names[i] if several else "")
        self._check_keys(owner)
        self.loss_keys = [f"{names[loss.output]}_loss" for loss in self.losses] if several else []
        self.keys = ["loss", *self.loss_keys, *(metric.key for metric in self.metrics)]

    def _add_metric(
        self, request: Any, of: OutputLoss, output: SymbolicTensor, prefix: str
    ) -> None:
        loss, shape = of.loss, output.sample_shape
        if request in ("accuracy", "acc"):
            metric = accuracy_for(of, output, request)
            key = f"{prefix}_{request}" if prefix else request
            self.meaning[key] = type(metric).__name__
        else:
            metric = metrics.get(request)
            key = f"{prefix}_{metric.name}" if prefix else metric.name
        # A plan's accuracy knows one row of C classes, and nothing of missing labels.
        native = metric.native is not None and getattr(loss, "ignore_class", None) is None
        native = native and not loss.mask_missing
        native = native and (metric.native == "sparse") == loss.integer_labels
        native = native and (metric.native == "binary" or len(shape) == 1)
        native = native and (not loss.traced or of.target_shape == shape)
        self.metrics.append(OutputMetric(of.output, key, metric, native, request))

    def _check_keys(self, owner: str) -> None:
        keys = [metric.key for metric in self.metrics]
        for key in keys:
            if keys.count(key) > 1 or key == "loss":
                raise ValueError(
                    f"{owner}: compile: metrics: expected different names, got {key!r} twice; "
                    "give a metric another name=..."
                )

    @property
    def native(self) -> list[OutputMetric]:
        return [metric for metric in self.metrics if metric.native]

    @property
    def observed(self) -> list[OutputMetric]:
        return [metric for metric in self.metrics if not metric.native]

    def loss_specs(self) -> list[dict[str, Any]]:
        return [
            loss.loss.spec() | {"output": loss.output, "weight": loss.weight}
            for loss in self.losses
        ]

    @property
    def traceable(self) -> list[OutputLoss]:
        """The losses of the user's whose targets have been seen, so that they can be traced."""
        return [loss for loss in self.losses if loss.loss.traced and loss.target_shape is not None]

    def metric_specs(self) -> list[dict[str, Any]]:
        return [{"kind": m.metric.native, "output": m.output} for m in self.native]


def check_probabilities(loss: Loss, output: SymbolicTensor, owner: str) -> None:
    """Sees that a loss of logits gets logits (or warns, as such a model still learns), and one of
    probabilities gets probabilities (ValueError)."""
    activation = final_activation(output)
    if loss.from_logits and activation in ("softmax", "sigmoid"):
        warnings.warn(
            f"{owner}: compile: loss: {loss.name} with from_logits=True expects logits, but "
            f"{output.name!r} ends in {activation}; remove one of them",
            stacklevel=5,
        )
    of_probabilities = loss.kind in ("softmax_cross_entropy", "binary_cross_entropy")
    if of_probabilities and not loss.from_logits:
        needed = ("softmax",) if loss.kind == "softmax_cross_entropy" else ("sigmoid", "softmax")
        if activation not in (*needed, UNKNOWN):
            raise ValueError(
                f"{owner}: compile: loss: {loss.name} expects probabilities, but {output.name!r} "
                f"ends in {activation or 'linear'}; end in activation={needed[0]!r}, or use "
                f"{type(loss).__name__}(from_logits=True)"
            )


def accuracy_for(of: OutputLoss, output: SymbolicTensor, name: str) -> Metric:
    """The accuracy that "accuracy" means beside this loss."""
    loss, shape = of.loss, output.sample_shape
    if loss.integer_labels or (of.target_shape in ((), (1,)) and shape != (1,)):
        return metrics.SparseCategoricalAccuracy(name)
    if isinstance(loss, losses.CategoricalCrossentropy):
        return metrics.CategoricalAccuracy(name)
    if isinstance(loss, losses.BinaryCrossentropy) or shape[-1] == 1:
        # Keras compares logits with 0.5 too; the logit of the probability 0.5 is 0.
        logits = loss.from_logits or (loss.traced and final_activation(output) is None)
        return metrics.BinaryAccuracy(name, threshold=0.0 if logits else 0.5)
    return metrics.CategoricalAccuracy(name)


def _weight(value: Any, owner: str) -> float:
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{owner}: compile: loss_weights: expected numbers, got {value!r}")
    return float(value)


def _per_output(
    value: Any, names: list[str], argument: str, owner: str, broadcast: bool = False
) -> list[Any]:
    """One entry per output from a single value, a list in their order or a dict by their names."""
    if isinstance(value, dict) and not ("class" in value and "config" in value):
        unknown = sorted(set(value) - set(names))
        if unknown:
            raise ValueError(
                f"{owner}: compile: {argument}: expected names of outputs {names}, got {unknown}"
            )
        return [value.get(name) for name in names]
    if isinstance(value, (list, tuple)):
        if len(value) != len(names):
            raise ValueError(
                f"{owner}: compile: {argument}: expected one entry for each of the outputs "
                f"{names}, got {len(value)}"
            )
        return list(value)
    if len(names) > 1 and value is not None and not broadcast:
        raise ValueError(
            f"{owner}: compile: {argument}: expected a list or dict for the outputs {names}, "
            f"got {value!r}"
        )
    return [value] * len(names)


def _metrics_per_output(value: Any, names: list[str], owner: str) -> list[list[Any]]:
    if value is None:
        return [[] for _ in names]
    if len(names) == 1 and not isinstance(value, dict):
        entries = list(value) if isinstance(value, (list, tuple)) else [value]
        if len(entries) == 1 and isinstance(entries[0], (list, tuple)):
            entries = list(entries[0])
        return [entries]
    result = []
    for entry in _per_output(value, names, "metrics", owner):
        several = isinstance(entry, (list, tuple))
        result.append([] if entry is None else list(entry) if several else [entry])
    return result
