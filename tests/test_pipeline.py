"""Work on threads: order, bounds, errors, and that nothing is left running."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from convlet.data.pipeline import Buffers, in_order
from loader_threads import running

pytestmark = pytest.mark.usefixtures("nothing_is_left_running")


class Squares:
    """A job with parts that take uneven times."""

    def __init__(self, number: int, parts: int = 3, fails_at: str = ""):
        self.number, self.parts, self.fails_at = number, parts, fails_at
        self.done = [False] * parts

    def work(self, part: int) -> None:
        time.sleep(0.0004 * ((self.number * 7 + part * 3) % 5))
        if self.fails_at == "work" and part == 1:
            raise OSError(f"work {self.number}")
        self.done[part] = True

    def finish(self) -> int:
        assert all(self.done)
        if self.fails_at == "finish":
            raise OSError(f"finish {self.number}")
        return self.number**2


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("ahead", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_results_come_in_order(threads, ahead, count):
    jobs = (Squares(i, parts=1 + i % 4) for i in range(count))
    assert list(in_order(jobs, threads, ahead)) == [i**2 for i in range(count)]


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_jobs_are_begun_than_allowed(ahead):
    drawn = []

    def jobs():
        for i in range(20):
            drawn.append(i)
            yield Squares(i)

    for taken, _ in enumerate(in_order(jobs(), 4, ahead), 1):
        time.sleep(0.003)
        assert len(drawn) <= taken + ahead


@pytest.mark.parametrize("where", ["work", "finish"])
@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_in_its_turn_and_stops_the_threads(where, threads):
    results = in_order(
        (Squares(i, fails_at=where if i == 4 else "") for i in range(99)), threads, 3
    )
    taken = []
    with pytest.raises(OSError, match=f"{where} 4"):
        for value in results:
            taken.append(value)
    assert taken == [0, 1, 4, 9]
    assert running() == 0


def test_an_error_of_the_source_of_jobs_is_raised():
    def jobs():
        yield Squares(1)
        raise RuntimeError("no more")

    results = in_order(jobs(), 2, 4)
    assert next(results) == 1
    with pytest.raises(RuntimeError, match="no more"):
        next(results)
    assert running() == 0


def test_leaving_early_stops_the_threads():
    for i, _ in enumerate(in_order((Squares(i) for i in range(10**6)), 4, 8)):
        if i == 3:
            break
    assert running() == 0
    results = in_order((Squares(i) for i in range(10**6)), 4, 8)
    next(results)
    assert running(4) == 4
    results.close()
    assert running() == 0


def test_ctrl_c_at_any_moment():
    """A few hundred interrupts at random moments: none leaves a thread, or waits for ever."""
    code = """
        import random, signal, threading, time
        from convlet.data.pipeline import in_order
        from loader_threads import running

        class Job:
            def __init__(self, number):
                self.number, self.parts = number, 1 + number % 3
            def work(self, part):
                time.sleep(1e-4 * (self.number % 4 == 0))
            def finish(self):
                return self.number

        def interrupt(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        draw, interrupted = random.Random(0), 0
        for _ in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-5, 3e-3))
                for _ in range(20):
                    assert list(in_order(map(Job, range(5)), 3, 2)) == list(range(5))
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            assert running() == 0
        print(interrupted)
    """
    program = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(  # where loader_threads is
        program, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 300


def test_memory_is_used_again_when_nobody_looks_at_it():
    buffers = Buffers(keep=2)
    first = buffers.array((4, 5), np.uint8)
    address = first.ctypes.data
    view = first[1:][:, ::2]
    del first
    second = buffers.array((4, 5), np.uint8)  # the view still needs the memory of the first
    assert second.ctypes.data != address
    assert not np.shares_memory(view, second)
    del view
    third = buffers.array((2, 5), np.float32)  # needs more than it has
    del third
    del second
    assert len({buffers.array((2, 5), np.float32).ctypes.data for _ in range(20)}) == 1


def test_what_is_kept_is_never_written_over():
    buffers = Buffers(keep=3)
    kept = []
    for i in range(50):
        array = buffers.array((7,), np.float32)
        array[:] = i
        if i % 5 == 0:
            kept.append(np.asarray(memoryview(array)) if i % 2 else array[2:].reshape(-1))
    assert [set(values.tolist()) for values in kept] == [{i} for i in range(0, 50, 5)]
