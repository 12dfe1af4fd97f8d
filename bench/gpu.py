"""Training steps and predictions on an NVIDIA GPU: convlet's and torch's, in one process.

    CONVLET_UNPROVEN_CUDA=1 python bench/gpu.py --json times.json [--models M1] [--batches 128]

Both train on the same images with the same weights; the first loss of every setting is held against
torch's in float32 before it is timed. A time is the median of the steps, each from the call to the
loss on the host. bench/gpu.sh runs this and everything else that a machine with a GPU is for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import networks  # noqa: E402
from bench.peers import convlet as ours  # noqa: E402
from bench.peers import torch as theirs  # noqa: E402

import convlet  # noqa: E402
from convlet import _core  # noqa: E402

# Setting -> (matmul precision, autocast, torch.compile's mode or None for eager).
TORCH = {
    "eager float32": ("highest", False, None),
    "eager tf32": ("high", False, None),
    "eager bfloat16": ("high", True, None),
    "compiled tf32": ("high", False, "max-autotune"),
    "compiled bfloat16": ("high", True, "max-autotune"),
}
CONVLET = ("float32", "tf32", "bfloat16")


def torch_step(setting, network, weights, images, labels):
    precision, autocast, mode = TORCH[setting]
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    torch.backends.cudnn.benchmark = True
    model = theirs.model_of(network, weights).cuda().to(memory_format=torch.channels_last)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).cuda()
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels).cuda()
    if network.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), network.learning_rate, fused=True)
    else:
        optimizer = torch.optim.SGD(
            model.parameters(), network.learning_rate, momentum=0.9, fused=True
        )
    forward = torch.compile(model, mode=mode) if mode else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def convlet_step(precision, network, weights, images, labels):
    model = ours.model_of(network, weights, device="cuda", precision=precision)
    return lambda: float(model.train_on_batch(images, labels))


def median_time(step, seconds, warm_up=5):
    """(first result, median seconds, steps)"""
    first = step()
    for _ in range(warm_up):
        step()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return first, statistics.median(times), len(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["M1", "M2", "M3", "M4", "M5"])
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 1024])
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing for each setting")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds; then it stops")
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    stop = time.perf_counter() + options.budget
    record = {
        "gpu": torch.cuda.get_device_name(),
        "convlet": f"{convlet.__version__} on {_core.device_description('cuda')}",
        "torch": torch.__version__,
        "rows": [],
    }
    settings = [("convlet", s, convlet_step) for s in CONVLET]
    settings += [("torch", s, torch_step) for s in TORCH]
    for name in options.models:
        network = networks.NETWORKS[name]
        weights = networks.weights(network)
        for batch in options.batches:
            images, labels = networks.batch(network, batch)
            expected = None
            for library, setting, make in sorted(settings, key=lambda s: s[1] != "eager float32"):
                if time.perf_counter() > stop:
                    record["stopped"] = f"at {name}, batch {batch}, {library} {setting}"
                    break
                row = {"model": name, "batch": batch, "library": library, "setting": setting}
                try:
                    loss, seconds, steps = median_time(
                        make(setting, network, weights, images, labels), options.seconds
                    )
                    expected = loss if expected is None else expected
                    exact = setting in ("float32", "eager float32")
                    agrees = abs(loss - expected) <= (1e-3 if exact else 5e-2) * abs(expected)
                    row |= {"ms": 1e3 * seconds, "steps": steps, "loss": loss, "agrees": agrees}
                except (RuntimeError, ValueError) as error:
                    row["error"] = str(error)[:500]
                record["rows"].append(row)
                print(json.dumps(row), flush=True)
                Path(options.json).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
