"""The frameworks that are measured, ours among them: a module each, imported in its own process.

A module defines

    SETTINGS   {"train": {setting: environment variables}, "infer": {...}}: the ways to run it that
               are worth comparing; the fastest counts as its best. Empty where it cannot do this.
               A setting with the word "cuda" is one for a GPU, with "tf32" or "bfloat16" in that
               precision
    versions() {package: version}
    train(setting, network, weights, images, labels) -> step, where step() does one step of training
               on the batch and returns its loss as a float
    infer(setting, network, weights, images) -> run, where run() returns the logits as an array

On a GPU, step() and run() may return before the work is done, or wait for a result that a long run
would not wait for. Their ``times(seconds, least)``, where it exists, gives the times of runs in ms,
measured for about this long and at least this often, between waits for the GPU.

For single ops a module ``<name>_ops`` defines SETTINGS {"ops": ...}, versions and

    op(setting, case, arrays) -> run, where run() returns the result; run.show(result), where it
                                 exists, turns that into an array of convlet's layout

Building raises whatever the framework raises; the case is then reported as failed, with the error.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

# glibc returns freed memory to the system and every step fetches it anew, page by page. An
# allocator that keeps it is worth up to a factor of two to frameworks that allocate in a step.
KEEP = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "1099511627776",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX_": "1",
}

# On a GPU a step of training is timed as a part of an epoch of this many batches.
BATCHES_OF_EPOCH = 16
# Calls of an op in one CUDA graph, so that launches cost next to nothing.
CALLS_OF_GRAPH = 20

PRECISIONS = ("float32", "tf32", "bfloat16")


def precision_of(setting):
    """The precision that a setting computes in."""
    return next((word for word in setting.split() if word in PRECISIONS), "float32")


def fits(setting, device, precision):
    """Whether a setting is one for this device, in this precision or in float32; settings with the
    word "winograd" have to be asked for."""
    words, precisions = setting.split(), ("float32", precision)
    here = ("cuda" in words) == (device == "cuda") and precision_of(setting) in precisions
    return here and "winograd" not in words


PEERS = ("torch", "keras", "jax", "tinygrad", "onnxruntime", "openvino", "ncnn")
OP_PEERS = ("torch",)


def batched_times(
    replay: Callable[[], object], wait: Callable[[], object], seconds: float, least: int
) -> list[float]:
    """The times of a call in ms, of a replay that makes CALLS_OF_GRAPH calls: each of replays that
    take some milliseconds together, between two waits for the GPU."""
    replay()
    wait()
    start = time.perf_counter()
    replay()
    wait()
    now = time.perf_counter()
    together = max(1, int(4e-3 / (now - start)))
    times, end = [], now + seconds
    while len(times) < least or now < end:
        start = now
        for _ in range(together):
            replay()
        wait()
        now = time.perf_counter()
        times.append(1e3 * (now - start) / (together * CALLS_OF_GRAPH))
    return times


def results_of(run, result):
    """The arrays that a run returned, one or several, as they are compared: ``run.show`` brings
    those that are not numpy's into convlet's layout."""
    shown = run.show(result) if hasattr(run, "show") else result
    several = shown if isinstance(shown, tuple) else (shown,)
    return [np.asarray(array, np.float32) for array in several]


DROPOUT_RATE = 0.5


def checked_dropout(result, x):
    """What frameworks agree on whose random numbers differ: what x becomes where it is kept, and
    the tenths that are dropped."""
    dropped = result == 0
    filled = np.where(dropped, x / (1 - DROPOUT_RATE), result)
    return np.append(filled, np.round(dropped.mean(), 1))
