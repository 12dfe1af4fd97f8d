"""Training batches whose images are moved a little, anew in each epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from convlet.utils.seeds import generator


class ShiftedBatches:
    """Batches (x, y) for fit. Every pass gives each image once, in a new order, moved at random.

    x: (N,H,W,C). y: (N,). reach: the furthest that an image is moved along each axis, in pixels;
    small moves are likelier (the difference of two uniform draws from 0..reach). What comes in at
    an edge is black. seed, epoch: decide order and moves; `epoch` counts the passes, so a training
    that is resumed goes on as it would have.
    """

    def __init__(
        self,
        x: NDArray[np.uint8],
        y: NDArray[np.int64],
        batch_size: int,
        *,
        reach: int,
        seed: int,
        epoch: int = 0,
    ) -> None:
        self.x, self.y, self.batch_size = x, y, batch_size
        self.reach, self.seed, self.epoch = reach, seed, epoch

    def __len__(self) -> int:
        return -(-len(self.y) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        draw = generator(self.seed, self.epoch)
        self.epoch += 1
        count, height, width, _ = self.x.shape
        order = draw.permutation(count)
        near, far = draw.integers(0, self.reach + 1, (2, count, 2))
        corners = self.reach + near - far  # of what is seen of each padded image
        edge = (self.reach, self.reach)
        for begin in range(0, count, self.batch_size):
            chosen = order[begin : begin + self.batch_size]
            padded = np.pad(self.x[chosen], ((0, 0), edge, edge, (0, 0)))
            top, left = corners[chosen].T[:, :, None]
            rows, columns = top + np.arange(height), left + np.arange(width)
            image = np.arange(len(chosen))[:, None, None]
            yield padded[image, rows[:, :, None], columns[:, None, :]], self.y[chosen]
