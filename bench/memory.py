"""How much memory a training step of ResNet-50 takes: convlet's plan, and torch's step.

convlet: parameters, gradients, optimizer state and the arena (activations and workspace), which is
all that a step touches, and beside it the growth of the process's peak memory. torch: the growth of
the peak of a process of its own, eager, channels_last, with in-place ReLU as torchvision writes it
and gradients that are freed and made again in each step (zero_grad's default). Each grows from
before the model is made until three steps are done, with SGD and momentum.

    python bench/memory.py [--size 224] [--batch 8] [--threads 2]
"""

import argparse
import resource
import subprocess
import sys

import numpy as np

MEGABYTE = 2**20


def peak():
    """The peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def convlet_resnet50(size):
    from convlet import applications

    return applications.resnet50(input_shape=(size, size, 3), classes=1000)


def torch_resnet50():
    """ResNet-50 v1.5, as torchvision's: the stride is in the 3x3 convolution."""
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            outputs = 4 * width
            self.relu = nn.ReLU(inplace=True)
            self.main = nn.Sequential(
                nn.Conv2d(inputs, width, 1, bias=False),
                nn.BatchNorm2d(width),
                self.relu,
                nn.Conv2d(width, width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                self.relu,
                nn.Conv2d(width, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )
            self.shortcut = nn.Identity()
            if stride != 1 or inputs != outputs:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x):
            y = self.main(x)
            y += self.shortcut(x)
            return self.relu(y)

    modules = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            modules.append(Bottleneck(inputs, width, stride if block == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def measure_torch(options):
    import torch

    torch.set_num_threads(options.threads)
    # Whatever torch loads at the first use is not counted.
    warm = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    torch.relu(warm(torch.randn(1, 3, 8, 8))).sum().backward()
    before = peak()
    model = torch_resnet50().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x = torch.randn(options.batch, 3, options.size, options.size)
    x = x.to(memory_format=torch.channels_last)
    y = torch.arange(options.batch)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    print(peak() - before)


def measure_convlet(options):
    from convlet import _core, optimizers

    _core.set_num_threads(options.threads)
    before = peak()
    model = convlet_resnet50(options.size)
    model.compile(optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).random((options.batch, options.size, options.size, 3), np.float32)
    for _ in range(3):
        model.train_on_batch(x, np.arange(options.batch))
    parts = model._engine().plan("train", options.batch).memory()
    print(peak() - before, *(f"{name}={size}" for name, size in parts.items()))


def run(which, options):
    """The output of this script in a process of its own, as words."""
    arguments = ["--size", options.size, "--batch", options.batch, "--threads", options.threads]
    command = [sys.executable, __file__, "--only", which, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def compare(options):
    growth, *parts = run("convlet", options)
    sizes = {name: int(size) for name, size in (part.split("=") for part in parts)}
    lowest = sizes.pop("live_set")
    print(f"ResNet-50, {options.size}x{options.size}, batch {options.batch}; MB")
    for name, size in sizes.items():
        print(f"  convlet {name:12}{size / MEGABYTE:8.0f}")
    print(f"  (activations alive at once at least {lowest / MEGABYTE:.0f})")
    print(f"convlet, a step     {sum(sizes.values()) / MEGABYTE:8.0f}")
    print(f"convlet, process    {int(growth) / MEGABYTE:8.0f}")
    print(f"torch, process      {int(run('torch', options)[0]) / MEGABYTE:8.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("torch", "convlet"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only == "torch":
        measure_torch(options)
    elif options.only == "convlet":
        measure_convlet(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
