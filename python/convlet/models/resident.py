"""Samples in a GPU's memory, for models that train on arrays."""

import os

from convlet import _core
from convlet.models.data import Rows, Samples

# What a data set may take of the memory that is free once the plan has its own.
_SHARE = 0.5


class Resident:
    """A copy of samples in the device's memory: steps take their batches there. Later changes of
    the arrays do not reach it."""

    def __init__(self, device: str, samples: Samples):
        self.device, self.samples = device, samples
        self._data = _core.Dataset(device, samples.inputs, samples.targets)
        for i, (weights, kept) in enumerate(zip(samples.weights, samples.kept, strict=True)):
            if kept is None and weights is not None:
                self._data.set_weights(i, weights)
        self._order: Rows | None = None
        self._batch_size = 0

    def in_order(self, order: Rows, batch_size: int) -> "_core.Dataset":
        """The data set with the order of an epoch: an array that nobody changes."""
        if order is not self._order or batch_size != self._batch_size:
            self._data.set_order(order)
            if any(kept is not None for kept in self.samples.kept):
                weights = self.samples.step_weights(order, batch_size)
                for i, kept in enumerate(self.samples.kept):
                    if kept is not None:
                        self._data.set_weights(i, weights[i])
            self._order, self._batch_size = order, batch_size
        return self._data


def resident(device: str, samples: Samples) -> Resident | None:
    """The samples in the device's memory, where they fit. CONVLET_RESIDENT=0 says that they do
    not."""
    if os.environ.get("CONVLET_RESIDENT") == "0":
        return None
    arrays = [*samples.inputs, *samples.targets]
    beside = 8 + 4 * len(samples.targets)  # bytes a row of its place in the order, and its weights
    needed = sum(array.nbytes for array in arrays) + beside * len(samples)
    return Resident(device, samples) if needed <= _SHARE * _core.free_memory(device) else None
