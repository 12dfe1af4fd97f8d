"""Work on threads, ahead of who needs it: jobs in parts, results in order, memory bounded.

Threads and not processes: decoding, resizing and the kernels release the GIL, and nothing has to be
copied from one process to another.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Result = TypeVar("Result", covariant=True)


class Job(Protocol[Result]):
    """What a batch takes to make. `parts` calls of `work`, on any threads, then one of `finish`."""

    parts: int

    def work(self, part: int) -> None: ...

    def finish(self) -> Result: ...


def in_order(jobs: Iterator[Job[Result]], threads: int, ahead: int) -> Iterator[Result]:
    """The results of the jobs, in their order, whatever the number of threads.

    jobs: drawn as they are needed. ahead: how many jobs may be begun or finished before the first
    of them is taken. An exception of a job, or of `jobs` itself, is raised in its turn. Closing
    the iterator (or dropping it, or an exception) stops the threads before it returns.
    """
    crew = _Crew(jobs, threads, ahead)
    try:
        yield from crew.results()
    finally:
        crew.close()


class _Work(Generic[Result]):
    """A job on its way."""

    def __init__(self, job: Job[Result]) -> None:
        self.job = job
        self.begun = 0
        self.open = job.parts
        self.result: Result | None = None
        self.error: BaseException | None = None


class _Crew(Generic[Result]):
    """The threads of one pass. All state is under one condition."""

    def __init__(self, jobs: Iterator[Job[Result]], threads: int, ahead: int) -> None:
        self._jobs, self._ahead = jobs, ahead
        self._changed = threading.Condition()
        self._flying: deque[_Work[Result]] = deque()  # in order; the first is delivered next
        self._drawn_out = False  # no more jobs
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"convlet-loader-{i}", daemon=True)
            for i in range(max(1, threads))
        ]
        _crews.add(self)
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterator[Result]:
        while True:
            with self._changed:
                while not self._closed and not self._first_is_done():
                    self._changed.wait()
                if self._closed or not self._flying:
                    return
                work = self._flying.popleft()
                self._changed.notify_all()
            if work.error is not None:
                raise work.error
            result = work.result
            del work  # the consumer alone holds the result: its memory can be used again
            yield result

    def _first_is_done(self) -> bool:
        return self._flying[0].open == 0 if self._flying else self._drawn_out

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():  # which may be collecting garbage
                thread.join()
        self._flying.clear()
        _crews.discard(self)

    def _run(self) -> None:
        while (piece := self._next_piece()) is not None:
            work, part = piece
            error = None
            try:
                if work.error is None:
                    work.job.work(part)
            except BaseException as caught:
                error = caught
            self._done(work, error)
            del work, piece

    def _next_piece(self) -> tuple[_Work[Result], int] | None:
        with self._changed:
            while not self._closed:
                for work in self._flying:
                    if work.begun < work.job.parts:
                        work.begun += 1
                        return work, work.begun - 1
                if self._drawn_out:
                    return None
                if len(self._flying) < self._ahead:
                    self._draw()
                else:
                    self._changed.wait()
            return None

    def _draw(self) -> None:
        try:
            self._flying.append(_Work(next(self._jobs)))
        except StopIteration:
            self._drawn_out = True
        except BaseException as error:
            self._drawn_out = True
            failed: _Work[Result] = _Work(_Nothing())
            failed.error = error
            self._flying.append(failed)
        self._changed.notify_all()

    def _done(self, work: _Work[Result], error: BaseException | None) -> None:
        with self._changed:
            work.error = work.error or error
            last = work.open == 1
            if not last:
                work.open -= 1
                return
        try:
            if work.error is None:
                work.result = work.job.finish()
        except BaseException as caught:
            work.error = caught
        with self._changed:
            work.open = 0
            self._changed.notify_all()


class _Nothing:
    parts = 0

    def work(self, part: int) -> None:
        """No part is ever begun."""

    def finish(self) -> Any:
        """Nor finished."""


_crews: weakref.WeakSet[_Crew[Any]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A pass that is still running at exit must not be met by an interpreter half gone."""
    for crew in list(_crews):
        crew.close()


class Buffers:
    """Arrays whose memory is used again as soon as nobody looks at them.

    A batch that the user keeps keeps its memory, too; only batches that are gone are written over.
    keep: how many pieces of memory to hold on to.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._slots: list[tuple[bytearray, weakref.ref[NDArray[Any]]]] = []

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array with arbitrary content."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with self._lock:
            at, memory = self._free(size)
            # Views of this array have it as their base, for its own base is no array: it lives
            # as long as any of them.
            array = np.ndarray(shape, dtype, buffer=memory)
            slot = (memory, weakref.ref(array))
            if at < len(self._slots):
                self._slots[at] = slot
            elif at < self._keep:
                self._slots.append(slot)
        return array

    def _free(self, size: int) -> tuple[int, bytearray]:
        """A place in the list, and its memory if nobody uses it and it is large enough."""
        free = [at for at, (_, user) in enumerate(self._slots) if user() is None]
        for at in free:
            if len(self._slots[at][0]) >= size:
                return at, self._slots[at][0]
        return (free[0] if free else len(self._slots)), bytearray(size)
