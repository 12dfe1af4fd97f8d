"""What the machine can do at most, measured in the same run as everything else."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import numpy as np

from convlet import _core, ops

ROOT = Path(__file__).resolve().parent.parent


def fma_gflops():
    """float32 multiply-adds in registers alone, on all threads."""
    return max(_core.fma_peak() for _ in range(3))


def memory_gb_s():
    """Reading two arrays and writing a third, all far larger than the caches: y = a + b."""
    a, b = (np.ones(32 << 20, np.float32) for _ in range(2))
    y = np.empty_like(a)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        ops.add(a, b, out=y)
        best = min(best, time.perf_counter() - start)
    return 3 * a.nbytes / best / 1e9


def gpu(python):
    """The same of a GPU, in a process that ends: its memory is free again."""
    ran = subprocess.run(
        [python, "-m", "bench.gpu_ceilings"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise SystemExit(f"bench: {(ran.stderr.strip().splitlines() or ['no GPU'])[-1]}")
    return json.loads(ran.stdout.splitlines()[-1])


def ceilings():
    return {
        "isa": _core.isa(),
        "threads": _core.num_threads(),
        "fma_gflops": fma_gflops(),
        "memory_gb_s": memory_gb_s(),
    }
