"""Labels as vectors."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def to_categorical(x: ArrayLike, num_classes: int | None = None) -> NDArray[np.float32]:
    """One-hot vectors of integer labels.

    Args:
        x: integers of any shape (...); a last axis of size 1 is dropped, as in Keras.
        num_classes: C; the largest label plus one when None.

    Returns:
        float32 (..., C), with 1 at the label.

    Raises:
        ValueError: when a label is not an integer in [0, C).
    """
    labels: NDArray[Any] = np.asarray(x)
    if labels.dtype.kind == "f" and np.all(labels == np.floor(labels)):
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iub":
        raise ValueError(f"to_categorical: x: expected integers, got {labels.dtype}")
    labels = labels.astype(np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    classes = (int(labels.max()) + 1 if labels.size else 0) if num_classes is None else num_classes
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"to_categorical: x: expected labels in [0, {classes}), "
            f"got {labels.min()} to {labels.max()}"
        )
    one_hot = np.zeros((*labels.shape, classes), np.float32)
    np.put_along_axis(one_hot, labels[..., None], 1.0, axis=-1)
    return one_hot
