"""The job of making one batch of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlet.data.pipeline import Buffers
from convlet.data.reader import BrokenImage, ImageReader

PARTS = 8  # of a batch, for several threads to share


class Change(NamedTuple):
    """From x uint8 (n,H,W,C) and the images' indices (n,) to `out`, float32 (n, *shape)."""

    apply: Callable[[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]], Any]
    shape: tuple[int, int, int]


class ImageBatch:
    """The images at `rows`, read part by part; then, as a whole, changed and scaled.

    When it is finished, `x` holds the images and `rows` which they are; `broken` {index: why} lists
    those that cannot be read and are left out.
    """

    def __init__(
        self,
        reader: ImageReader,
        rows: NDArray[np.int64],
        buffers: Buffers,
        change: Change | None,
    ) -> None:
        self._reader, self._buffers, self._change = reader, buffers, change
        self.rows = rows
        self.x: NDArray[Any] = buffers.array((len(rows), *reader.shape), np.uint8)
        self.broken: dict[int, str] = {}
        self._size = max(1, len(rows) // PARTS) if reader.needs_work else len(rows)
        self.parts = -(-len(rows) // self._size)

    def work(self, part: int) -> None:
        """Read some of the images."""
        if not self._reader.needs_work:
            self._reader.gather(self.rows, self.x)
            return
        begin = part * self._size
        for i in range(begin, min(begin + self._size, len(self.rows))):
            try:
                self._reader.read(int(self.rows[i]), self.x[i])
            except BrokenImage as error:
                self.broken[int(self.rows[i])] = str(error)

    def finish(self) -> ImageBatch:
        """Leave out what is broken, change and scale the rest."""
        if self.broken:
            self.broken = {i: self.broken[i] for i in sorted(self.broken)}
            good = ~np.isin(self.rows, list(self.broken))
            self.rows, self.x = self.rows[good], self.x[good]
        if self._change is not None and len(self.rows):
            out = self._buffers.array((len(self.rows), *self._change.shape), np.float32)
            self._change.apply(self.x, self.rows, out)
            self.x = out
        self.x = self._reader.preprocessing.scaled(self.x)
        return self
