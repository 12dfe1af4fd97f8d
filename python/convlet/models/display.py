"""What training, evaluation and prediction print."""

import sys
import time
from typing import Any

from convlet.progress import ProgressBar, format_logs, format_time, is_terminal


class EpochDisplay:
    """What is shown of a pass over data: a bar and then a line (verbose 1), a line (2) or nothing
    (0). ``count`` and ``steps`` are the samples and batches to come, None when unknown."""

    def __init__(self, label: str, count: int | None, steps: int | None, verbose: int):
        self.label, self.verbose = label, verbose
        self._begun = time.perf_counter()
        self._rate = 0.0
        self._by_samples = count is not None
        total = count if count is not None else steps
        unit = "images" if self._by_samples else "batches"
        self._bar = ProgressBar(label, total, unit, sys.stdout) if verbose == 1 else None

    def due(self) -> bool:
        """Whether the bar wants to be drawn again."""
        return self._bar is not None and self._bar.due()

    def update(self, samples: int, steps: int, logs: dict[str, Any]) -> None:
        """Draws the bar."""
        if self._bar is not None:
            self._bar.update(samples if self._by_samples else steps, logs)

    def passed(self, samples: int) -> None:
        """The pass is done, with this many samples; what follows does not count for the rate."""
        self._rate = samples / max(time.perf_counter() - self._begun, 1e-9)

    def clear(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()

    def finish(self, logs: dict[str, Any]) -> None:
        """Puts the line in the place of the bar."""
        self.clear()
        if self.verbose:
            seconds = format_time(time.perf_counter() - self._begun)
            rate = f"{self._rate:.0f} images/s"
            parts = [seconds, rate, *([format_logs(logs)] if logs else [])]
            print(f"{self.label}: {', '.join(parts)}", flush=True)


def verbosity(owner: str, verbose: Any) -> int:
    """0, 1 or 2; "auto" is 1 on a terminal, else 2. ValueError for anything else."""
    if verbose == "auto":
        return 1 if is_terminal() else 2
    if verbose not in (0, 1, 2):
        raise ValueError(f"{owner}: verbose: expected 'auto', 0, 1 or 2, got {verbose!r}")
    return int(verbose)
