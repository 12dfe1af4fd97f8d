"""Where the time of a train step goes: every step of the plan with its time.

The shortest run of each step, in milliseconds; convolutions and dense layers with their GFLOP/s and
the share of the multiply-add peak that the same program measured (above 100 % where a convolution
leaves out what its pooling does not read). "(rest)" is what the shortest whole step takes beside
them: reading the batch, the calls from Python, and what steps took longer than their shortest.

    python -m bench.step_profile [--models M1 M2] [--batches 32 128] [--threads 2] [--seconds 2]
                                 [--by kernel] [--winograd]
"""

from __future__ import annotations

import argparse
import math
import time

from bench import ceilings, networks
from bench.peers import convlet as ours

from convlet import _core


def flops_of_layers(model):
    """Of one pass over one image, by layer."""
    flops = {}
    for node in model.nodes_in_order:
        weights = node.layer.trainable_weights
        if weights and len(weights[0].shape) > 1:
            pixels = math.prod(node.shapes[0][:-1])
            flops[node.layer.name] = 2.0 * pixels * math.prod(weights[0].shape)
    return flops


def profile(network, batch, seconds, winograd):
    """([(phase, kernel, layer, seconds, flops)], seconds of a whole step)"""
    model = ours.model_of(network, networks.weights(network), winograd=winograd)
    images, labels = networks.batch(network, batch)
    for _ in range(3):
        model.train_on_batch(images, labels)
    plan = model._engine().plan("train", batch)
    plan.time_steps()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        model.train_on_batch(images, labels)
        times.append(time.perf_counter() - start)
    flops = flops_of_layers(model)
    rows = []
    steps = plan.steps()
    for step, after in zip(steps, [*steps[1:], {}], strict=True):
        multiplies = step["kernel"].startswith(("conv2d", "dense")) and "bias" not in step["kernel"]
        # The first of two steps of one name transforms the weights for the second.
        names = ("kernel", "layer")
        multiplies &= any(step[name] != after.get(name) for name in names)
        work = flops.get(step["layer"], 0.0) * batch if multiplies else 0.0
        rows.append((step["name"], step["kernel"], step["layer"], step["seconds"], work))
    return rows, min(times)


def by_kernel(rows):
    """The same with one row for each kernel, in the order of their times."""
    sums = {}
    for phase, kernel, _, seconds, work in rows:
        old = sums.get((phase, kernel), (0, 0.0, 0.0))
        sums[phase, kernel] = (old[0] + 1, old[1] + seconds, old[2] + work)
    ordered = sorted(sums.items(), key=lambda item: -item[1][1])
    return [(*key, f"{n} layers", seconds, work) for key, (n, seconds, work) in ordered]


def table(rows, total, peak):
    lines = []
    measured = sum(row[3] for row in rows)
    for phase, kernel, layer, seconds, work in [*rows, ("", "(rest)", "", total - measured, 0.0)]:
        line = f"  {phase:9}{kernel:28}{layer:20}{1e3 * seconds:9.3f} {seconds / total:6.1%}"
        if work and seconds:
            line += f"{work / seconds / 1e9:8.0f} {work / seconds / 1e9 / peak:5.0%}"
        lines.append(line)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["M1", "M2", "M3"])
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--threads", type=int, default=_core.num_threads())
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--by", choices=["step", "kernel"], default="step")
    parser.add_argument("--winograd", action="store_true", help="in training too")
    options = parser.parse_args()
    _core.set_num_threads(options.threads)
    peak, winograd = ceilings.fma_gflops(), "always" if options.winograd else "inference"
    print(f"{_core.isa()}, {options.threads} thread(s), peak {peak:.0f} GFLOP/s")
    for name in options.models:
        network = networks.NETWORKS[name]
        for batch in options.batches:
            rows, total = profile(network, batch, options.seconds, winograd)
            share = networks.flops(network, True) * batch / total / 1e9 / peak
            print(
                f"{name} {network.title}, batch {batch}: {1e3 * total:.2f} ms, {share:.0%} of peak"
            )
            print(table(by_kernel(rows) if options.by == "kernel" else rows, total, peak))


if __name__ == "__main__":
    main()
