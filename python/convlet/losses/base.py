"""Loss, and the checks of targets that losses share."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlet.utils.names import snake_case

F32 = NDArray[np.float32]
Shape = tuple[int, ...]


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
