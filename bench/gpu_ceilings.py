"""What a GPU can do at most: prints it as a line of JSON.

    python -m bench.gpu_ceilings

Memory by convlet's y = a + b, far beyond the caches; arithmetic by torch's product of two large
matrices of random numbers in each precision, where torch sees the GPU.
"""

from __future__ import annotations

import json

import numpy as np
from bench.peers import CALLS_OF_GRAPH, PRECISIONS, batched_times
from bench.peers.convlet import gpu
from bench.peers.convlet_ops import _Gpu

from convlet import _core, ops

SECONDS = 0.2
ELEMENTS = {"cuda": 128 << 20}  # of each of three arrays; elsewhere few
SIZE = 8192  # of the matrices


def memory_gb_s(device):
    place, count = _Gpu(), ELEMENTS.get(device, 1 << 12)
    values = np.random.default_rng(0).random(count, np.float32)
    a, b, y = (place.put(values) for _ in range(3))
    run = place.timed(lambda: ops.add(a, b, out=y))
    return 3 * values.nbytes / min(run.times(SECONDS, 2)) / 1e6


def gflops(precision):
    """Of torch, or None where it does not see the GPU."""
    try:
        import torch
        from bench.peers.torch import set_precision
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    set_precision(precision)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(SIZE, SIZE, device="cuda", dtype=dtype) for _ in range(2))
    y = torch.empty_like(a)

    def replay():
        for _ in range(CALLS_OF_GRAPH):
            torch.mm(a, b, out=y)

    return 2 * SIZE**3 / min(batched_times(replay, torch.cuda.synchronize, SECONDS, 2)) / 1e6


def main():
    device = gpu()
    rates = {precision: gflops(precision) for precision in PRECISIONS}
    found = {
        "isa": _core.device_description(device),
        "threads": _core.num_threads(),
        "memory_gb_s": memory_gb_s(device),
        "gflops": {precision: rate for precision, rate in rates.items() if rate},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
