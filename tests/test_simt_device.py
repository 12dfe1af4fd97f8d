"""`pytest --device simt`, the ordinary tests on the CUDA backend in the emulator, as part of the
plain tests: all of them, each on one of four schedules, as many at a time as there are cores."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from simt.library import build

ROOT = Path(__file__).resolve().parent.parent

# What loaders call on the host, and the CPU's peak (csrc/ops/kernels.h).
LEFT_OUT = {"resize_bilinear", "resize_workspace", "fma_peak"}


@pytest.fixture(scope="module")
def library():
    return build()


# Threads in order, in reverse, shuffled; with -1 and 3 the fastest warp runs ahead.
SEEDS = (0, -1, 2, 3)


@pytest.fixture(scope="module")
def parts(library):
    """Every fourth test with one seed, the next with another; of each, how many have passed."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield [
            pool.submit(
                run_in_emulator, library, seed, "--part", f"{i}/{len(SEEDS)}", ROOT / "tests"
            )
            for i, seed in enumerate(SEEDS)
        ]


def run_in_emulator(library, seed, *arguments):
    """How many tests have passed."""
    options = ["-q", "-x", "--device", "simt", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments],
        env=os.environ | {"CONVLET_SIMT_LIBRARY": str(library), "CONVLET_SIMT_SEED": str(seed)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout[-600:]
    return int(passed[1])


@pytest.mark.parametrize("part", range(len(SEEDS)))
def test_ordinary_tests_pass(parts, part):
    assert parts[part].result() > 1000


def test_the_table_has_every_kernel():
    contract = (ROOT / "csrc/ops/kernels.h").read_text()
    members = set(re.findall(r"\(\*(\w+)\)\(", contract.split("struct Kernels {")[1]))
    table = (ROOT / "csrc/cuda/table.cu").read_text()
    filled = set(re.findall(r"^ +(?:KERNEL\(|t\.)(\w+)", table, re.MULTILINE))
    assert members - filled == LEFT_OUT
