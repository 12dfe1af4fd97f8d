"""Batch normalization in training against torch and against the memory's bandwidth.

A training step (forward and backward, dx included) of a stack of 9 layers less that of a stack of
one, divided by 8, alone and with a ReLU after each layer; torch's the same way, channels_last, with
an in-place ReLU. The bandwidth is that of adding two arrays of the same size into a third. Bytes
count each reading and writing of a whole tensor once: 3 in the forward (x for the statistics, x, y)
and 5 in the backward (dy and x for the sums, dy, x, dx). A ReLU adds none to ours.

    python bench/batch_norm.py [--threads 2] [--seconds 1]
"""

import argparse
import time

import numpy as np
import torch

from convlet import _core, ops

# N, H = W, C: layers of ResNet-50 and of ResNet-18 for small images.
SHAPES = [(8, 112, 64), (8, 56, 256), (8, 28, 512), (8, 14, 1024), (128, 32, 64), (128, 8, 256)]
STACK = 9


def best_times(functions, seconds):
    """The shortest run of each, in turns, in this time for all, after one to warm up.

    One thread is timed by the time it had a processor, so that other processes count less.
    """
    clock = time.thread_time if _core.num_threads() == 1 else time.perf_counter
    best = [float("inf")] * len(functions)
    for function in functions:
        function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for i, function in enumerate(functions):
            start = clock()
            function()
            best[i] = min(best[i], clock() - start)
    return best


def our_step(x, layers, relu):
    """A function that runs a training step of a stack of layers, and its plan."""
    c = x.shape[-1]
    graph = _core.Graph()
    value = graph.input("x", x.shape[1:])
    for i in range(layers):
        trained = [graph.parameter(f"{i}/{name}", [c]) for name in ("gamma", "beta")]
        moving = [graph.parameter(f"{i}/{name}", [c], False) for name in ("mean", "variance")]
        value = graph.node("batch_norm", f"norm{i}", [value], trained + moving, {})
        if relu:
            value = graph.node("activation", f"relu{i}", [value], [], {"activation": "relu"})
    graph.output(graph.node("global_avg_pool2d", "pool", [value]))
    state = _core.State(graph)
    for i in range(0, 4 * layers, 4):
        state.set(i, np.ones(c, np.float32))
    state.set_optimizer({"kind": "sgd"})
    plan = _core.Plan(graph, state, "train", len(x), [{"kind": "mean_squared_error"}])
    target = np.zeros((len(x), c), np.float32)
    return lambda: plan.run([x], [target])


def torch_step(x, layers, relu):
    modules = []
    for _ in range(layers):
        modules.append(torch.nn.BatchNorm2d(x.shape[-1], eps=1e-3))
        modules += [torch.nn.ReLU(inplace=True)] if relu else []
    model = torch.nn.Sequential(*modules).train()
    tensor = torch.from_numpy(x).permute(0, 3, 1, 2)

    def step():
        model.zero_grad()
        model(tensor).mean((2, 3)).square().mean().backward()

    return step


def measure(shape, relu, seconds):
    """Seconds of a layer's step, ours and torch's, and of an addition."""
    n, size, c = shape
    x = np.random.default_rng(0).standard_normal((n, size, size, c), np.float32)
    other, out = x.copy(), np.empty_like(x)
    functions = [make(x, count, relu) for make in (our_step, torch_step) for count in (1, STACK)]
    functions.append(lambda: ops.add(x, other, out=out))
    times = best_times(functions, seconds)
    return (times[1] - times[0]) / (STACK - 1), (times[3] - times[2]) / (STACK - 1), times[4]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=_core.num_threads())
    parser.add_argument("--seconds", type=float, default=1.0, help="per row")
    options = parser.parse_args()
    _core.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    print(f"{_core.isa()}, {options.threads} thread(s); forward and backward of a layer, ms")
    print(f"{'':24}{'ours':>9}{'torch':>9}{'ratio':>7}{'GB/s':>7}{'of add':>8}")
    for shape in SHAPES:
        for relu in (False, True):
            ours, theirs, addition = measure(shape, relu, options.seconds)
            n, size, c = shape
            bytes_ = 4 * n * size * size * c
            rate, ceiling = 8 * bytes_ / ours, 3 * bytes_ / addition
            name = f"{n}x{size}x{size}x{c}" + (" relu" if relu else "")
            print(
                f"{name:24}{ours * 1e3:9.2f}{theirs * 1e3:9.2f}{theirs / ours:7.1f}"
                f"{rate * 1e-9:7.0f}{rate / ceiling:8.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
