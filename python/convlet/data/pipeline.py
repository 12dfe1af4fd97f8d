"""Work on threads, ahead of who needs it: jobs in parts, results in order, memory bounded.

Threads and not processes: decoding, resizing and the kernels release the GIL, and nothing has to be
copied from one process to another.
"""

from __future__ import annotations

import _thread
import atexit
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue
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
    crew: _Crew[Result] = _Crew()
    try:
        crew.start(threads)
        yield from crew.results(jobs, ahead)
    finally:
        # A Ctrl-C meanwhile is heard afterwards; it may come as the first thing in the call.
        interrupt = None
        while True:
            try:
                crew.close()
                break
            except KeyboardInterrupt as again:
                interrupt = again
        if interrupt is not None:
            raise interrupt


class _Work(Generic[Result]):
    """A job on its way."""

    def __init__(self, job: Job[Result]) -> None:
        self.job = job
        self.open = job.parts
        self.finished = False
        self.result: Result | None = None
        self.error: BaseException | None = None


class _Crew(Generic[Result]):
    """The threads of one pass, and the queues between them and their user.

    Ctrl-C interrupts the user's thread between any two steps of Python. It therefore takes no lock
    that the crew waits for: a Condition, whose methods are Python, would stay locked for ever, and
    threading.Thread holds one while it starts. What passes between the threads are single puts
    into, and gets from, queues written in C.
    """

    def __init__(self) -> None:
        self._tasks: SimpleQueue[tuple[_Work[Result], int] | None] = SimpleQueue()
        self._finished: SimpleQueue[_Work[Result]] = SimpleQueue()
        self._counting = threading.Lock()  # of the crew alone
        self._closed = False
        self._started = 0
        self._members: list[int] = []  # threads that run, or ran
        self._ended: list[int] = []
        self._bell: SimpleQueue[None] = SimpleQueue()  # rings for each that has ended
        _crews.add(self)

    def start(self, threads: int) -> None:
        for _ in range(max(1, threads)):
            _thread.start_new_thread(self._run, ())
            self._started += 1

    def results(self, jobs: Iterator[Job[Result]], ahead: int) -> Iterator[Result]:
        flying: deque[_Work[Result]] = deque()  # in order; the first is delivered next
        failure: BaseException | None = None
        drawn_out = False
        while True:
            while len(flying) < ahead and not drawn_out:
                try:
                    job = next(jobs, None)
                except Exception as error:
                    job, failure = None, error
                drawn_out = job is None
                if job is not None:
                    flying.append(_Work(job))
                    for part in range(job.parts):
                        self._tasks.put((flying[-1], part))
                del job
            if not flying:
                if failure is not None:
                    raise failure
                return
            while not flying[0].finished:
                self._finished.get().finished = True
            work = flying.popleft()
            if work.error is not None:
                raise work.error
            result = work.result
            del work  # the consumer alone holds the result: its memory can be used again
            yield result
            del result

    def close(self) -> None:
        """Stops the threads and waits for them. After an exception it may be called again."""
        self._closed = True
        self._tasks.put(None)  # each thread hands it on to the next
        while not self._is_over():
            self._bell.get()
        _crews.discard(self)

    def _is_over(self) -> bool:
        # A thread of the crew may come here, too: when it happens to collect a dropped iterator.
        return len(self._ended) >= self._started or threading.get_ident() in self._members

    def _run(self) -> None:
        self._members.append(threading.get_ident())
        while (task := self._tasks.get()) is not None:
            work, part = task
            del task
            error = None
            try:
                if not self._closed and work.error is None:
                    work.job.work(part)
            except BaseException as caught:
                error = caught
            self._count(work, error)
            del work, error
        self._tasks.put(None)
        self._ended.append(threading.get_ident())
        self._bell.put(None)

    def _count(self, work: _Work[Result], error: BaseException | None) -> None:
        with self._counting:
            work.error = work.error or error
            work.open -= 1
            if work.open > 0:
                return
        try:
            if not self._closed and work.error is None:
                work.result = work.job.finish()
        except BaseException as caught:
            work.error = caught
        self._finished.put(work)


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
