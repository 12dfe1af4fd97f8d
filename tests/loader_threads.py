"""How many threads the loader (or anything else) has running beside the main one, here or in a
program of its own."""

import _thread
import gc
import subprocess
import sys
import textwrap
import time
from pathlib import Path


def running(expected: int = 0) -> int:
    """The number of threads, once it is `expected` or a second has passed: a thread that has run
    its last line is counted for a moment more."""
    gc.collect()
    end = time.monotonic() + 1
    while _thread._count() != expected and time.monotonic() < end:
        time.sleep(0.001)
    return _thread._count()


def run_program(code: str, *arguments: str) -> str:
    """What a program, which may import this module, prints; it must end well and without a
    warning."""
    program = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    result = subprocess.run(
        program, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout
