"""Losses, with Keras' names, arguments and numerics. A model computes them in its plan, fused with
the softmax or sigmoid before them; called on arrays they run the same kernels.

A loss is a mean over the batch: sum_n(weight_n * l_n) / N (Keras' "sum_over_batch_size"). Where
labels are missing, which must be said (ignore_class, mask_missing), N counts the samples that have
one.

A loss of your own is a function (y_true, y_pred), or a subclass of Loss with ``call``, made of
``convlet.ops``: compile takes it, and the plan runs it. docs/extending.md has an example.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlet import _core
from convlet.utils.names import snake_case

F32 = NDArray[np.float32]
Shape = tuple[int, ...]

_EPSILON = np.float32(1e-7)  # Keras' epsilon: probabilities are clipped to [epsilon, 1 - epsilon]


class Loss:
    """Base. ``loss(y_true, y_pred, sample_weight=None)`` is the mean over a batch of arrays.

    A subclass of your own defines ``call(self, y_true, y_pred)``, made of ``convlet.ops``, which
    gives each sample one value or more, whose mean is its loss. It runs once, on symbolic tensors;
    y_true has the shape that the targets have.

    Args:
        name: made from the class name when None.
        mask_missing: targets that are NaN are missing: they count neither in the loss nor in the
            metrics. A sample's loss is the mean over the values that it has; a class distribution
            with a NaN is missing as a whole.
    """

    kind = "value"  # the plan's name; this: the graph computes it
    integer_labels = False
    focal: tuple[Any, ...] = ()  # what the kernel takes last for a focal loss

    def __init__(
        self,
        name: str | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str = "sum_over_batch_size",
        mask_missing: bool = False,
    ):
        owner = type(self).__name__
        if reduction != "sum_over_batch_size":
            raise ValueError(
                f"{owner}: reduction: expected 'sum_over_batch_size', got {reduction!r}"
            )
        if not isinstance(from_logits, (bool, np.bool_)):
            raise ValueError(f"{owner}: from_logits: expected True or False, got {from_logits!r}")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(
                f"{owner}: label_smoothing: expected a number in [0, 1], got {label_smoothing!r}"
            )
        self.name = snake_case(owner) if name is None else name
        self.from_logits = bool(from_logits)
        self.label_smoothing = float(label_smoothing)
        self.mask_missing = bool(mask_missing)

    def __call__(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        values = (self._own_rows if self.traced else self.call)(y_true, y_pred).astype(np.float64)
        if sample_weight is not None:
            weights = np.asarray(sample_weight, np.float64)
            if weights.shape != values.shape:
                raise ValueError(
                    f"{self.name}: sample_weight: expected shape {values.shape}, "
                    f"got {weights.shape}"
                )
            values = values * weights
        return float(values.sum() / max(1, values.size))

    @property
    def traced(self) -> bool:
        """Whether it is the user's own, whose ``call`` describes it to a graph."""
        return type(self).call is not Loss.call

    def _own_rows(self, y_true: ArrayLike, y_pred: ArrayLike) -> NDArray[Any]:
        """The loss of each row by a ``call`` of the user's."""
        predictions = np.ascontiguousarray(y_pred, np.float32)
        values = np.asarray(self.call(np.ascontiguousarray(y_true, np.float32), predictions))
        if values.ndim == 0:
            return np.full(len(predictions), values)
        if len(values) != len(predictions):
            raise ValueError(
                f"{self.name}: expected a value for each of {len(predictions)} samples, "
                f"got shape {values.shape}"
            )
        return values.reshape(len(values), -1).mean(axis=1)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each row, (N,); where rows have no label, 0 for these, and for the others
        what makes the mean over N the mean over the others."""
        predictions = np.ascontiguousarray(y_pred, np.float32)
        if predictions.ndim < 2:
            raise ValueError(f"{self.name}: y_pred: expected (N,C), got shape {predictions.shape}")
        targets = self.targets(np.asarray(y_true), predictions.shape[1:], self.name)
        if len(targets) != len(predictions):
            raise ValueError(
                f"{self.name}: expected as many y_true as y_pred, "
                f"got {len(targets)} and {len(predictions)}"
            )
        targets, kept = self.mask(targets)
        values = self.rows(targets, predictions)
        if kept is None:
            return values
        share = np.float32(len(kept) / max(1, np.count_nonzero(kept)))
        return np.where(kept, values * share, np.float32(0))

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        """The loss of each row of targets that ``mask`` gave."""
        raise NotImplementedError

    def mask(self, targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Targets as the plan takes them, and which rows have a label (None: all), for targets that
        ``targets`` gave."""
        if not self.mask_missing:
            return targets, None
        missing = np.isnan(targets).reshape(len(targets), -1)
        if not missing.any():
            return targets, None
        if self.kind != "softmax_cross_entropy":
            return targets, ~missing.all(axis=1)
        kept = ~missing.any(axis=1)
        return np.where(kept.reshape(-1, *(1,) * (targets.ndim - 1)), targets, np.float32(0)), kept

    def targets(self, y: NDArray[Any], sample: Shape, owner: str) -> NDArray[Any]:
        """Checks targets for an output of shape (N, *sample) and gives them the dtype that a plan
        takes. ValueError that begins with ``owner``."""
        if not self.traced:
            return like_output(self, y, sample, owner)
        if y.dtype.kind not in "fiub" or y.ndim == 0:
            raise ValueError(
                f"{owner}: expected an array of numbers (N, ...) for {self.name}, got dtype "
                f"{y.dtype} and shape {y.shape}"
            )
        return np.ascontiguousarray(y, np.float32)

    def spec(self) -> dict[str, Any]:
        """What a plan must know."""
        return {
            "kind": self.kind,
            "integer_labels": self.integer_labels,
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
            "skip_missing": self.mask_missing and self.kind != "softmax_cross_entropy",
        }

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name} | ({"mask_missing": True} if self.mask_missing else {})


def like_output(loss: Loss, y: NDArray[Any], sample: Shape, owner: str) -> NDArray[Any]:
    """Float targets of the output's own shape: (N,) against (N,1) is refused, never broadcast."""
    if y.shape[1:] != sample or y.ndim == 0:
        hint = ""
        if y.shape == y.shape[:1] and sample == (1,):
            hint = "; reshape it with y[:, None]"
        elif y.ndim == 1 and loss.kind == "softmax_cross_entropy":
            hint = "; for integer labels use 'sparse_categorical_crossentropy'"
        raise ValueError(
            f"{owner}: expected targets {shape_text(sample)} to match the output for "
            f"{loss.name}, got shape {y.shape}{hint}"
        )
    return np.ascontiguousarray(y, np.float32)


def shape_text(sample: Shape) -> str:
    """(N,H,W,C), for messages."""
    return "(N," + ",".join(str(s) for s in sample) + ")"


class SparseCategoricalCrossentropy(Loss):
    """-log p[label] for integer labels (N,) or (N,1) and predictions (N,C).

    Args:
        from_logits: the predictions are logits, not probabilities.
        ignore_class: a label, such as -1, whose rows count neither in the loss nor in the metrics.
        label_smoothing: e in [0, 1]: the label's probability is 1 - e + e / C, the others' e / C.

    Raises:
        ValueError: for a label outside [0, C) that is not ignore_class, with its position.
    """

    kind = "softmax_cross_entropy"
    integer_labels = True

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "sparse_categorical_crossentropy",
        *,
        label_smoothing: float = 0.0,
    ):
        super().__init__(name, from_logits, label_smoothing, reduction)
        if ignore_class is not None and not isinstance(ignore_class, (int, np.integer)):
            raise ValueError(
                f"{name}: ignore_class: expected an integer or None, got {ignore_class!r}"
            )
        self.ignore_class = None if ignore_class is None else int(ignore_class)

    def targets(self, y: NDArray[Any], sample: Shape, owner: str) -> NDArray[Any]:
        if len(sample) != 1:
            raise ValueError(
                f"{owner}: {self.name} expects an output (N,C), got {shape_text(sample)}"
            )
        if not (y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)):
            hint = (
                "; for one-hot labels use 'categorical_crossentropy'"
                if y.ndim == 2 and y.shape[1:] == sample
                else ""
            )
            raise ValueError(
                f"{owner}: expected integer labels (N,) or (N,1) for {self.name}, "
                f"got shape {y.shape}{hint}"
            )
        labels = integer_labels(y.reshape(-1), owner)
        wrong = (labels < 0) | (labels >= sample[0])
        if self.ignore_class is not None:
            wrong &= labels != self.ignore_class
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(
                f"{owner}: expected labels in [0, {sample[0]}), got {labels[at]} at position {at}"
            )
        return labels

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        logits = predictions if self.from_logits else _log_probabilities(predictions)
        return _core.softmax_cross_entropy(
            logits, targets, None, self.label_smoothing, None, "none", False, *self.focal
        )

    def mask(self, targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        if self.ignore_class is None:
            return targets, None
        kept = targets != self.ignore_class
        return np.where(kept, targets, 0).astype(np.int64), kept

    def get_config(self) -> dict[str, Any]:
        return {
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
            "label_smoothing": self.label_smoothing,
            "name": self.name,
        }


def integer_labels(y: NDArray[Any], owner: str) -> NDArray[Any]:
    """Labels as uint8, int32 or int64; floats are taken when they are whole numbers."""
    if y.dtype.kind == "f":
        whole = np.isfinite(y) & (y == np.floor(y))
        if not whole.all():
            at = int(np.argmin(whole))
            raise ValueError(f"{owner}: expected integer labels, got {y[at]} at position {at}")
        return y.astype(np.int64)
    if y.dtype.kind not in "iub":
        raise ValueError(f"{owner}: expected integer labels, got dtype {y.dtype}")
    if y.dtype in (np.uint8, np.int32, np.int64):
        return np.ascontiguousarray(y)
    return y.astype(np.uint8 if y.dtype.kind == "b" else np.int64)


class CategoricalCrossentropy(Loss):
    """-sum_c t[c] log p[c] for probabilities (one-hot labels) t (N,C) and predictions (N,C).

    Args:
        from_logits: the predictions are logits, not probabilities.
        label_smoothing: e in [0, 1]: t becomes (1 - e) t + e / C.
        mask_missing: targets that are NaN do not count; see Loss.
    """

    kind = "softmax_cross_entropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        *,
        mask_missing: bool = False,
    ):
        super().__init__(name, from_logits, label_smoothing, reduction, mask_missing)
        if axis != -1:
            raise ValueError(f"{name}: axis: expected -1, got {axis!r}")

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        logits = predictions if self.from_logits else _log_probabilities(predictions)
        return _core.softmax_cross_entropy(
            logits, targets, None, self.label_smoothing, None, "none", False, *self.focal
        )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
        }


class BinaryCrossentropy(Loss):
    """The mean over the last axes of -t log p - (1 - t) log(1 - p): one or several yes-or-no
    answers.

    Args:
        from_logits: the predictions are logits, not probabilities.
        label_smoothing: e in [0, 1]: t becomes (1 - e) t + e / 2.
        mask_missing: targets that are NaN do not count; see Loss.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        *,
        mask_missing: bool = False,
    ):
        super().__init__(name, from_logits, label_smoothing, reduction, mask_missing)
        if axis != -1:
            raise ValueError(f"{name}: axis: expected -1, got {axis!r}")

    @property
    def kind(self) -> str:  # type: ignore[override]
        return "sigmoid_cross_entropy" if self.from_logits else "binary_cross_entropy"

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        return _elementwise_rows(self, targets, predictions)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
        }


class MeanSquaredError(Loss):
    """The mean over the last axes of (y_pred - y_true)^2.

    Args:
        mask_missing: targets that are NaN do not count; see Loss.
    """

    kind = "mean_squared_error"

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "mean_squared_error",
        *,
        mask_missing: bool = False,
    ):
        super().__init__(name, reduction=reduction, mask_missing=mask_missing)

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        return _elementwise_rows(self, targets, predictions)


class CategoricalFocalCrossentropy(CategoricalCrossentropy):
    """-alpha sum_c t[c] (1 - p[c])^gamma log p[c]: a cross-entropy that turns to the samples that
    are still hard (Lin et al. 2017, "Focal Loss for Dense Object Detection").

    Args:
        alpha: the factor of the whole loss.
        gamma: how much easy samples lose, >= 0; with 0 and alpha 1 it is the cross-entropy.
        from_logits, label_smoothing, mask_missing: see CategoricalCrossentropy.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        *,
        mask_missing: bool = False,
    ):
        super().__init__(
            from_logits, label_smoothing, axis, reduction, name, mask_missing=mask_missing
        )
        self.alpha, self.gamma = _focal_numbers(name, alpha, gamma)
        self.focal = (self.gamma,)

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        return np.float32(self.alpha) * super().rows(targets, predictions)

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"focal_gamma": self.gamma, "positive_weight": self.alpha}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"alpha": self.alpha, "gamma": self.gamma}


class SparseCategoricalFocalCrossentropy(SparseCategoricalCrossentropy):
    """CategoricalFocalCrossentropy for integer labels (N,) or (N,1). Keras has none of this kind.

    Args:
        alpha, gamma: see CategoricalFocalCrossentropy.
        from_logits, ignore_class, label_smoothing: see SparseCategoricalCrossentropy.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "sparse_categorical_focal_crossentropy",
        *,
        label_smoothing: float = 0.0,
    ):
        super().__init__(
            from_logits, ignore_class, reduction, name, label_smoothing=label_smoothing
        )
        self.alpha, self.gamma = _focal_numbers(name, alpha, gamma)
        self.focal = (self.gamma,)

    def rows(self, targets: NDArray[Any], predictions: F32) -> F32:
        return np.float32(self.alpha) * super().rows(targets, predictions)

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"focal_gamma": self.gamma, "positive_weight": self.alpha}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"alpha": self.alpha, "gamma": self.gamma}


class BinaryFocalCrossentropy(BinaryCrossentropy):
    """The binary cross-entropy times (1 - q)^gamma, q = t p + (1 - t) (1 - p) the probability of
    the right answer (Lin et al. 2017).

    Args:
        apply_class_balancing: multiply by alpha t + (1 - alpha) (1 - t) too.
        alpha: in [0, 1], the weight of the answer 1.
        gamma: how much easy answers lose, >= 0.
        from_logits, label_smoothing, mask_missing: see BinaryCrossentropy.
    """

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        *,
        mask_missing: bool = False,
    ):
        super().__init__(
            from_logits, label_smoothing, axis, reduction, name, mask_missing=mask_missing
        )
        self.apply_class_balancing = bool(apply_class_balancing)
        self.alpha, self.gamma = _focal_numbers(name, alpha, gamma)
        if self.alpha > 1:
            raise ValueError(f"{name}: alpha: expected a number in [0, 1], got {alpha!r}")
        self.focal = (self.gamma, self.alpha if self.apply_class_balancing else None)

    def spec(self) -> dict[str, Any]:
        spec = super().spec() | {"focal_gamma": self.gamma}
        if self.apply_class_balancing:
            spec |= {"positive_weight": self.alpha, "negative_weight": 1 - self.alpha}
        return spec

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "apply_class_balancing": self.apply_class_balancing,
            "alpha": self.alpha,
            "gamma": self.gamma,
        }


def _focal_numbers(owner: str, alpha: Any, gamma: Any) -> tuple[float, float]:
    for argument, value in (("alpha", alpha), ("gamma", gamma)):
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not number or not 0 <= value < np.inf:
            raise ValueError(f"{owner}: {argument}: expected a number >= 0, got {value!r}")
    return float(alpha), float(gamma)


def _log_probabilities(p: F32) -> F32:
    p = p / p.sum(axis=-1, keepdims=True)
    return np.log(np.clip(p, _EPSILON, 1 - _EPSILON))


def _elementwise_rows(loss: Loss, targets: NDArray[Any], predictions: F32) -> F32:
    known = ~np.isnan(targets) if loss.mask_missing else np.ones(targets.shape, np.bool_)
    values = _core.elementwise_loss(
        loss.kind,
        predictions,
        np.where(known, targets, np.float32(0)),
        loss.label_smoothing,
        "none",
        False,
        *loss.focal,
    )
    axes = tuple(range(1, values.ndim))
    count = np.maximum(1, np.count_nonzero(known, axis=axes)).astype(np.float32)
    return np.where(known, values, np.float32(0)).sum(axis=axes) / count


class FunctionLoss(Loss):
    """A function (y_true, y_pred) of the user's as a loss."""

    def __init__(self, function: Callable[[Any, Any], Any]):
        super().__init__(getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)


NAMES: dict[str, type[Loss]] = {
    "binary_crossentropy": BinaryCrossentropy,
    "binary_focal_crossentropy": BinaryFocalCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "categorical_focal_crossentropy": CategoricalFocalCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "sparse_categorical_focal_crossentropy": SparseCategoricalFocalCrossentropy,
}


def get(identifier: Any, custom_objects: dict[str, Any] | None = None) -> Loss:
    """The loss for a name, a class name, a {"class", "config"} dict, a function (y_true, y_pred) or
    a Loss; ValueError otherwise. ``custom_objects``: losses of the user's by name."""
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if callable(identifier):
        return FunctionLoss(identifier)
    name, config = identifier, {}
    if isinstance(identifier, dict):
        name, config = identifier.get("class"), identifier.get("config", {})
    if isinstance(name, str):
        if name.lower() in NAMES:
            return NAMES[name.lower()](**config)
        for cls in NAMES.values():
            if cls.__name__ == name:
                return cls(**config)
    if isinstance(identifier, dict) and isinstance(name, str):
        return _custom(name, config, custom_objects or {})
    raise ValueError(
        f"loss: expected one of {sorted(NAMES)}, a function (y_true, y_pred) or an object of "
        f"convlet.losses, got {identifier!r}"
    )


def _custom(name: str, config: dict[str, Any], custom_objects: dict[str, Any]) -> Loss:
    """The user's class or function of a name."""
    found = custom_objects.get(name)
    if found is None:
        raise ValueError(
            f"the loss {name!r} is not convlet's: hand it over with custom_objects={{{name!r}: "
            f"{name}}}, or load without it with compile=False"
        )
    if isinstance(found, type) and issubclass(found, Loss):
        return found(**config)
    if isinstance(found, Loss) or not callable(found):
        raise ValueError(
            "custom_objects: expected a class of loss or a function (y_true, y_pred) for "
            f"{name!r}, got {found!r}"
        )
    return FunctionLoss(found)


def serialize(loss: Loss) -> dict[str, Any]:
    """{"class", "config"}, from which ``get`` makes it again."""
    if isinstance(loss, FunctionLoss):
        return {"class": loss.name, "config": {}}
    return {"class": type(loss).__name__, "config": loss.get_config()}
