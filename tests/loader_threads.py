"""How many threads the loader (or anything else) has running beside the main one."""

import _thread
import gc
import time


def running(expected: int = 0) -> int:
    """The number of threads, once it is `expected` or a second has passed: a thread that has run
    its last line is counted for a moment more."""
    gc.collect()
    end = time.monotonic() + 1
    while _thread._count() != expected and time.monotonic() < end:
        time.sleep(0.001)
    return _thread._count()
