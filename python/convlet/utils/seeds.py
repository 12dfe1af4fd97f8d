"""Seeds. Every random draw of convlet (initial weights, shuffles, splits, dropout) comes from one
root seed, 0 until ``set_random_seed`` is called, so a script gives the same result each time it
runs."""

import random
import threading

import numpy as np

_lock = threading.Lock()
_root = 0
_drawn = 0


def set_random_seed(seed: int) -> None:
    """Seeds convlet, numpy and Python's ``random``.

    Args:
        seed: an integer in [0, 2**32).

    Raises:
        ValueError: when seed is not such an integer.
    """
    global _root, _drawn
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ValueError(f"set_random_seed: seed: expected an integer in [0, 2**32), got {seed!r}")
    random.seed(int(seed))
    np.random.seed(int(seed))  # noqa: NPY002 (for code that draws from it)
    with _lock:
        _root, _drawn = int(seed), 0


def next_seed() -> int:
    """The next 63-bit seed of the root's sequence; it fits an int64 and JSON."""
    global _drawn
    with _lock:
        _drawn += 1
        words = np.random.SeedSequence([_root, _drawn]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def generator(*key: int) -> np.random.Generator:
    """A Philox generator that depends on the integers of ``key`` alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
