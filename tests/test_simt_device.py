"""The CUDA backend in the emulator, as part of the plain tests.

All of `pytest --device simt` takes too long for every run. Here every 16th test of those runs on
threads in order, and another 16th on threads in an order drawn at random.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simt.library import build

ROOT = Path(__file__).resolve().parent.parent

# What loaders call on the host (csrc/ops/kernels.h).
LEFT_OUT = {
    "resize_bilinear",
    "resize_workspace",
}


@pytest.fixture(scope="module")
def library():
    return build()


def run_in_emulator(library, seed, *arguments):
    """How many tests have passed."""
    options = ["-q", "-x", "--device", "simt", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments],
        env=os.environ | {"CONVLET_SIMT_LIBRARY": str(library), "CONVLET_SIMT_SEED": seed},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout[-600:]
    return int(passed[1])


@pytest.mark.parametrize(("part", "seed"), [("0/16", "0"), ("5/16", "5")])
def test_ordinary_tests_pass(library, part, seed):
    assert run_in_emulator(library, seed, "--part", part, str(ROOT / "tests")) > 200


def test_arrays_of_other_libraries(library):
    """In full: what they are for is streams, which the ordinary tests do not have."""
    assert run_in_emulator(library, "0", str(ROOT / "tests/test_cuda_arrays.py")) > 300


def test_the_table_has_every_kernel():
    contract = (ROOT / "csrc/ops/kernels.h").read_text()
    members = set(re.findall(r"\(\*(\w+)\)\(", contract.split("struct Kernels {")[1]))
    table = (ROOT / "csrc/cuda/table.cu").read_text()
    filled = set(re.findall(r"^ +(?:KERNEL\(|t\.)(\w+)", table, re.MULTILINE))
    assert members - filled == LEFT_OUT
