"""A progress bar for terminals, and how numbers are written in it."""

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np


def format_value(value: Any) -> str:
    """0.0123, 1.2e-05, 12.3; arrays as lists of these."""
    if np.ndim(value):
        return "[" + " ".join(format_value(v) for v in np.ravel(value)) + "]"
    value = float(value)
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.3e}"
    return f"{value:.4f}"


def format_logs(logs: Mapping[str, Any]) -> str:
    """ "loss 0.1234, accuracy 0.9876"."""
    return ", ".join(f"{key} {format_value(value)}" for key, value in logs.items())


def format_time(seconds: float) -> str:
    """ "0.42 s", "12 s", "3:07 min", "1:02:33 h"."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether the stream (stdout when None) is a terminal."""
    stream = sys.stdout if stream is None else stream
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


class ProgressBar:
    """One line that is drawn again as work goes on: a bar, the rate, the time left and some values.

    Args:
        label: begins the line.
        total: units of work, None when unknown.
        unit: what is counted, for the rate: "images".
        stream: stdout when None.
    """

    WIDTH = 24
    INTERVAL = 0.1  # seconds between two drawings

    def __init__(
        self, label: str, total: int | None, unit: str = "images", stream: TextIO | None = None
    ):
        self.label, self.total, self.unit = label, total, unit
        self.stream = sys.stdout if stream is None else stream
        self.begun = time.perf_counter()
        self._drawn_at = 0.0
        self._length = 0

    def due(self) -> bool:
        """Whether enough time has passed for another drawing."""
        return time.perf_counter() - self._drawn_at >= self.INTERVAL

    def update(self, done: int, values: Mapping[str, Any] | None = None) -> None:
        """Draws the bar at ``done`` units."""
        self._drawn_at = time.perf_counter()
        elapsed = max(self._drawn_at - self.begun, 1e-9)
        parts = [self.label]
        if self.total:
            filled = min(self.WIDTH, self.WIDTH * done // self.total)
            parts.append(f"{done}/{self.total} [{'#' * filled}{'.' * (self.WIDTH - filled)}]")
        else:
            parts.append(str(done))
        parts.append(f"{done / elapsed:.0f} {self.unit}/s")
        if self.total and 0 < done < self.total:
            parts.append(f"ETA {format_time(elapsed / done * (self.total - done))}")
        if values:
            parts.append(format_logs(values))
        self._write("  ".join(parts))

    def close(self, line: str | None = None) -> None:
        """Replaces the bar with a last line, or clears it."""
        if line is None:
            self._write("")
            self.stream.write("\r")
        else:
            self._write(line)
            self.stream.write("\n")
        self.stream.flush()

    def _write(self, text: str) -> None:
        self.stream.write("\r" + text + " " * max(0, self._length - len(text)))
        self.stream.flush()
        self._length = len(text)
