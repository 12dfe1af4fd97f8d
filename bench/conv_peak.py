"""How near to the machine's peak the convolution kernels come.

Measures the float32 peak (multiply-adds in registers alone) of one thread and of all, then, for the
3x3 layers of the reference models, the forward pass, the gradient with respect to the input and the
gradient with respect to the weights: GFLOP/s, and their share of the peak of as many threads. A
multiply-add with a zero of the padding counts as work, as is usual, though the kernels leave most
of them out: a share may exceed 100%.
Every layer is verified against torch in float64 before it is timed.

    python bench/conv_peak.py [--threads N ...] [--models M1 M5 ...] [--batch 32] [--seconds 0.3]
"""

import argparse
import time

import numpy as np
import torch

from convlet import _core, ops

# name: (H = W, C, K, padding) of the 3x3 layers.
MODELS = {
    "M1 cifar-cnn": [(32, 3, 32, 0), (15, 32, 64, 0), (6, 64, 64, 0)],
    "M2 mnist-cnn": [(28, 1, 32, 0), (13, 32, 64, 0), (5, 64, 64, 0)],
    "M3 cifar-small": [(32, 3, 32, 0), (15, 32, 64, 0)],
    "M4 img224": [(224, 3, 32, 0), (111, 32, 64, 0)],
    "M5 resnet18-cifar": [(32, 64, 64, 1), (16, 128, 128, 1), (8, 256, 256, 1), (4, 512, 512, 1)],
}


def best_time(function, seconds):
    """The shortest of the runs that fit into this time, after one to warm up.

    One thread is timed by the time it had a processor, so that other processes count less.
    """
    clock = time.thread_time if _core.num_threads() == 1 else time.perf_counter
    function()
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = clock()
        function()
        best = min(best, clock() - start)
    return best


def verify(results, x, w, dy, padding):
    """Compares the first image's y and dx, and dw of a batch of one, with torch in float64."""
    tensors = [torch.from_numpy(a).double().requires_grad_() for a in (x[:1], w)]
    y = torch.nn.functional.conv2d(
        tensors[0].permute(0, 3, 1, 2), tensors[1].permute(3, 2, 0, 1), padding=padding
    ).permute(0, 2, 3, 1)
    y.backward(torch.from_numpy(dy[:1]).double())
    exact = (y.detach(), tensors[0].grad, tensors[1].grad)
    dw = ops.conv2d_backward_weight(dy[:1], x[:1], (3, 3), padding=padding)
    for got, expected in zip((results[0][:1], results[1][:1], dw), exact, strict=True):
        error = np.abs(got - expected.numpy()).max() / np.abs(expected.numpy()).max()
        if not error < 1e-5:
            raise SystemExit(f"wrong result: relative error {error:.2g}")


def measure(size, c, k, padding, batch, seconds):
    """GFLOP/s of the forward pass and the two gradients."""
    rng = np.random.default_rng(0)
    out = size + 2 * padding - 2
    x = rng.standard_normal((batch, size, size, c), np.float32)
    w = rng.standard_normal((3, 3, c, k), np.float32)
    dy = rng.standard_normal((batch, out, out, k), np.float32)
    y, dx, dw = np.empty_like(dy), np.empty_like(x), np.empty_like(w)
    passes = (
        lambda: ops.conv2d(x, w, padding=padding, out=y),
        lambda: ops.conv2d_backward_input(dy, w, x.shape, padding=padding, out=dx),
        lambda: ops.conv2d_backward_weight(dy, x, (3, 3), padding=padding, out=dw),
    )
    times = [best_time(run, seconds) for run in passes]
    verify((y, dx), x, w, dy, padding)
    return [2e-9 * batch * out * out * 9 * c * k / t for t in times]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="*", default=sorted({1, _core.num_threads()}))
    parser.add_argument("--models", nargs="*", default=[name.split()[0] for name in MODELS])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=0.3, help="per measurement")
    options = parser.parse_args()

    for threads in options.threads:
        _core.set_num_threads(threads)
        peak = _core.fma_peak()
        print(f"{_core.isa()}, {threads} thread(s): peak {peak:.0f} GFLOP/s float32")
        title = f"layer, batch {options.batch}"
        print(f"{title:38}{'forward':>14}{'grad-input':>14}{'grad-weight':>14}")
        for name, layers in MODELS.items():
            if name.split()[0] not in options.models:
                continue
            for size, c, k, padding in layers:
                rates = measure(size, c, k, padding, options.batch, options.seconds)
                cells = "".join(f"{rate:8.0f}{rate / peak:6.0%}" for rate in rates)
                print(f"{name:19}{size}x{size}x{c} -> {k}".ljust(38) + cells, flush=True)


if __name__ == "__main__":
    main()
