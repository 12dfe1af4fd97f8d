"""From what users pass as data to what a plan takes: whole arrays and the rows of each batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.layers.base import SymbolicTensor
from convlet.losses import shape_text
from convlet.models.compilation import OutputLoss

Array = NDArray[Any]
Rows = NDArray[np.int64]

_PLAN_DTYPES = {np.dtype(name) for name in ("float32", "float64", "uint8", "int32", "int64")}


def to_array(value: Any, owner: str) -> Array:
    """A contiguous array of a dtype that a plan reads; numbers only."""
    array = np.asarray(value)
    if array.dtype not in _PLAN_DTYPES:
        kind = array.dtype.kind
        if kind not in "fiub":
            raise TypeError(f"{owner}: expected an array of numbers, got dtype {array.dtype}")
        if kind == "f":
            array = array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
        elif array.dtype == np.uint64:  # beyond int64
            array = array.astype(np.float64)
        elif kind == "b":
            array = array.astype(np.uint8)
        else:
            array = array.astype(np.int32 if array.dtype.itemsize < 4 else np.int64)
    return np.ascontiguousarray(array)


@dataclass
class Samples:
    """Arrays of one length M: the inputs, and per loss the targets and the weights of the samples.

    truths: the targets as the user gave them, for metrics that see outputs.
    kept: per loss, which rows count (None: all).
    """

    inputs: list[Array]
    targets: list[Array]
    truths: list[Array]
    weights: list[NDArray[np.float32] | None]
    kept: list[NDArray[np.bool_] | None]
    # A copy on the device: None when there is none yet, False when there shall be none.
    resident: Any = None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def step_weights(
        self, order: Rows, batch_size: int | None = None
    ) -> list[NDArray[np.float32] | None]:
        """The weights for a step on the rows ``order``, or for steps on ``batch_size`` of them at a
        time. Where rows are ignored, the mean of the loss is over the others: their weights grow by
        what is missing."""
        result = []
        size = batch_size or max(1, len(order))
        for weights, kept in zip(self.weights, self.kept, strict=True):
            if kept is not None:
                scaled = np.empty(len(self), np.float32)  # only the rows of ``order`` are read
                for first in range(0, len(order), size):
                    rows = order[first : first + size]
                    count = np.count_nonzero(kept[rows])
                    share = kept[rows] * np.float32(len(rows) / max(1, count))
                    scaled[rows] = share if weights is None else share * weights[rows]
                weights = scaled
            result.append(weights)
        return result


@dataclass
class Batch:
    """The samples ``rows`` of ``samples``. In an epoch over arrays these begin at place ``first``
    of its ``order``; other batches have no order."""

    samples: Samples
    rows: Rows
    order: Rows | None = None
    first: int = 0


class DataAdapter:
    """Checks data against a model's inputs, outputs and losses.

    Args:
        owner: begins the errors: "fit", "evaluate", "predict".
        inputs: the model's inputs; names: of its outputs; shapes: of their samples.
        losses: as compiled.
    """

    def __init__(
        self,
        owner: str,
        inputs: Sequence[SymbolicTensor],
        output_names: list[str],
        output_shapes: list[tuple[int, ...]],
        losses: list[OutputLoss],
    ):
        self.owner = owner
        self.inputs = list(inputs)
        self.output_names, self.output_shapes = output_names, output_shapes
        self.losses = losses

    def samples(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None
    ) -> Samples:
        """Everything of a data set or of one batch, checked."""
        inputs = input_arrays(self.owner, self.inputs, x)
        truths = self._truths(y)
        targets, kept = [], []
        for output_loss, truth in zip(self.losses, truths, strict=True):
            name = f"{self.owner}: y"
            if len(self.losses) > 1:
                name += f" for output {self.output_names[output_loss.output]!r}"
            shape = self.output_shapes[output_loss.output]
            prepared = output_loss.loss.targets(truth, shape, name)
            if len(prepared) != len(inputs[0]):
                raise ValueError(
                    f"{name}: expected as many targets as samples in x, "
                    f"got {len(prepared)} and {len(inputs[0])}"
                )
            output_loss.learn_shape(prepared.shape[1:], name)
            prepared, rows = output_loss.loss.mask(prepared)
            targets.append(prepared)
            kept.append(rows)
        weights = self._weights(sample_weight, class_weight, truths, len(inputs[0]))
        return Samples(inputs, targets, truths, weights, kept)

    def _truths(self, y: Any) -> list[Array]:
        if y is None and self.losses:
            raise ValueError(f"{self.owner}: y: expected targets, got None")
        names = [self.output_names[loss.output] for loss in self.losses]
        if isinstance(y, dict):
            missing = [name for name in names if name not in y]
            if missing:
                raise ValueError(
                    f"{self.owner}: y: expected targets for the outputs {names}, got {sorted(y)}"
                )
            leaves = [y[name] for name in names]
        elif len(self.output_names) > 1:
            listed = list(y) if isinstance(y, (list, tuple)) else [y]
            if len(listed) == len(self.output_names):
                listed = [listed[loss.output] for loss in self.losses]
            if len(listed) != len(names):
                raise ValueError(
                    f"{self.owner}: y: expected a list of {len(self.output_names)} arrays for the "
                    f"outputs {self.output_names}, got {len(listed)}"
                )
            leaves = listed
        else:
            single = isinstance(y, (list, tuple)) and len(y) == 1 and hasattr(y[0], "shape")
            leaves = [y[0] if single else y]
        return [np.asarray(leaf) for leaf in leaves]

    def _weights(
        self, sample_weight: Any, class_weight: Any, truths: list[Array], count: int
    ) -> list[NDArray[np.float32] | None]:
        names = [self.output_names[loss.output] for loss in self.losses]
        if isinstance(sample_weight, dict):
            unknown = sorted(set(sample_weight) - set(names))
            if unknown:
                raise ValueError(
                    f"{self.owner}: sample_weight: expected names of outputs {names}, got {unknown}"
                )
            per_loss = [sample_weight.get(name) for name in names]
        elif isinstance(sample_weight, (list, tuple)) and len(names) > 1:
            per_loss = list(sample_weight)
            if len(per_loss) != len(names):
                raise ValueError(
                    f"{self.owner}: sample_weight: expected {len(names)} arrays, "
                    f"got {len(per_loss)}"
                )
        else:
            per_loss = [sample_weight] * len(names)
        weights = [None if w is None else self._sample_weight(w, count) for w in per_loss]
        if class_weight is not None:
            if len(names) != 1:
                raise ValueError(
                    f"{self.owner}: class_weight: expected a model with one output, got {names}; "
                    "use sample_weight"
                )
            by_class = self._class_weight(class_weight, truths[0])
            weights = [by_class if weights[0] is None else by_class * weights[0]]
        return weights

    def _sample_weight(self, value: Any, count: int) -> NDArray[np.float32]:
        weights = np.ascontiguousarray(value, np.float32)
        if weights.shape == (count, 1):
            weights = weights[:, 0]
        if weights.shape != (count,):
            raise ValueError(
                f"{self.owner}: sample_weight: expected one weight for each of the {count} "
                f"samples, got shape {weights.shape}"
            )
        if not np.isfinite(weights).all():
            at = int(np.argmin(np.isfinite(weights)))
            raise ValueError(
                f"{self.owner}: sample_weight: expected finite numbers, "
                f"got {weights[at]} at position {at}"
            )
        return weights

    def _class_weight(self, value: Any, truth: Array) -> NDArray[np.float32]:
        labels = class_labels(truth)
        # One sigmoid answers for two classes.
        classes = max(2, self.output_shapes[self.losses[0].output][-1])
        if not isinstance(value, dict) or labels is None:
            raise ValueError(
                f"{self.owner}: class_weight: expected a dict from class to weight and class "
                f"labels in y, got {value!r}"
            )
        table = np.ones(classes, np.float32)
        for label, weight in value.items():
            integer = isinstance(label, (int, np.integer)) and 0 <= label < classes
            if not integer or not np.isfinite(weight):
                raise ValueError(
                    f"{self.owner}: class_weight: expected classes in [0, {classes}) and finite "
                    f"weights, got {label!r}: {weight!r}"
                )
            table[int(label)] = weight
        return table[np.clip(labels, 0, classes - 1)]


def class_labels(y: Array) -> Array | None:
    """The class of each row of y: integers (N,) or (N,1), or the largest of one-hot rows (N,C);
    None when y holds no classes."""
    if y.ndim == 2 and y.shape[1] > 1:
        one_hot = y.size and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all()
        return y.argmax(axis=1) if one_hot else None
    if y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
        labels = y.reshape(-1)
        if labels.dtype.kind in "iub":
            return labels.astype(np.int64)
        if labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels % 1 == 0).all():
            return labels.astype(np.int64)
    return None


def input_arrays(owner: str, inputs: Sequence[SymbolicTensor], x: Any) -> list[Array]:
    """One array (M, *sample) per input of a model, from what a user passes as x."""
    if len(inputs) == 1 and _fits(x, inputs[0].sample_shape):  # in a fraction of the time
        return [x]
    leaves = _input_leaves(owner, inputs, x)
    arrays = []
    for tensor, leaf in zip(inputs, leaves, strict=True):
        name = f"{owner}: x"
        if len(inputs) > 1:
            name += f" for input {tensor.name!r}"
        arrays.append(_fit_sample(to_array(leaf, name), tensor.sample_shape, name))
    counts = {len(array) for array in arrays}
    if len(counts) > 1:
        raise ValueError(
            f"{owner}: x: expected inputs of one length, got {[len(a) for a in arrays]}"
        )
    return arrays


def _fits(array: Any, sample: tuple[int, ...]) -> bool:
    """Whether it is what a plan reads as it is, (M, *sample)."""
    return (
        type(array) is np.ndarray
        and array.ndim == len(sample) + 1
        and array.shape[1:] == sample
        and array.dtype in _PLAN_DTYPES
        and array.flags.c_contiguous
    )


def _input_leaves(owner: str, inputs: Sequence[SymbolicTensor], x: Any) -> list[Any]:
    names = [tensor.name for tensor in inputs]
    if isinstance(x, dict):
        if set(x) != set(names):
            raise ValueError(f"{owner}: x: expected the names {names}, got {sorted(x)}")
        return [x[name] for name in names]
    if len(names) == 1:
        single = isinstance(x, (list, tuple)) and len(x) == 1
        wrapped = single and np.ndim(x[0]) == len(inputs[0].sample_shape) + 1
        return [x[0] if wrapped else x]
    if not isinstance(x, (list, tuple)) or len(x) != len(names):
        got = len(x) if isinstance(x, (list, tuple)) else type(x).__name__
        raise ValueError(
            f"{owner}: x: expected a list of {len(names)} arrays for {names}, got {got}"
        )
    return list(x)


def _fit_sample(array: Array, sample: tuple[int, ...], owner: str) -> Array:
    """(M, *sample); a last size of 1 may be left out."""
    if array.ndim == len(sample) + 1 and array.shape[1:] == sample:
        return array
    if sample[-1] == 1 and array.ndim == len(sample) and array.shape[1:] == sample[:-1]:
        return array.reshape(*array.shape, 1)
    shorter = f" or {shape_text(sample[:-1])}" if sample[-1] == 1 and len(sample) > 1 else ""
    raise ValueError(f"{owner}: expected {shape_text(sample)}{shorter}, got shape {array.shape}")
