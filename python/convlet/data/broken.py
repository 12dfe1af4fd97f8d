"""The images of a run that cannot be read: remembered, listed, and too many of them an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

DEFAULT_LIMIT = 0.1
SHOWN = 5


class BrokenImages:
    """Which of `count` images cannot be read, and why.

    limit: how many may be: a number of images, or a share of them below 1 (at least one image).
    """

    def __init__(self, count: int, limit: float = DEFAULT_LIMIT) -> None:
        number = isinstance(limit, (int, float, np.integer)) and not isinstance(limit, bool)
        if not number or not limit >= 0 or (limit >= 1 and limit != int(limit)):
            raise ValueError(
                f"max_broken: expected a number of images or a share of them below 1, got {limit!r}"
            )
        share = 0 < limit < 1
        self.count = count
        self.limit = max(1, int(limit * count)) if share else int(limit)
        self.reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.reasons)

    def __contains__(self, index: Any) -> bool:
        return index in self.reasons

    def add(self, index: int, reason: str) -> None:
        """Remember an image. `reason` names it.

        Raises ValueError, with the first reasons, when there are more than the limit.
        """
        self.reasons[index] = reason
        if len(self.reasons) > self.limit:
            raise ValueError(
                f"{len(self)} of {self.count} images cannot be read, at most {self.limit} are "
                f"let pass: {some_lines(list(self.reasons.values()), '; ')}"
            )


def some_lines(lines: Sequence[str], separator: str = "\n") -> str:
    """The first few lines and how many more there are."""
    more = len(lines) - SHOWN
    return separator.join([*lines[:SHOWN], *([f"and {more} more"] if more > 0 else [])])
