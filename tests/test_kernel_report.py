"""Registers that nvcc spills, bank conflicts and memory traffic of every CUDA kernel: no worse than
what tests/simt/kernels.json says, which docs/cuda_kernels.md has as a table.

After a change of a kernel for the better, `python tests/simt/kernel_report.py` writes both again.
"""

import json
import re
from pathlib import Path

import pytest

from convlet import _core
from simt import kernel_report
from simt.library import build

RECORD = json.loads(kernel_report.RECORD.read_text())
MODULE = Path(_core.__file__)


# draw_kernel's stack is an array of the sine's.
STACKS = {"draw_kernel": 40}


def spills(found):
    """Kernels that need more stack than they may, as `resources` gives them."""
    return [
        f"{kernel} for {architecture}: a stack of {needs['stack']} bytes"
        for kernel, by_architecture in found.items()
        for architecture, needs in by_architecture.items()
        if needs["stack"] > STACKS.get(kernel, 0)
    ]


def worse(found, record):
    """What has more bank conflicts or sectors than the record, both as `counts` gives them."""
    return [
        f"{workload}: {kernel} has {numbers[key]} {key}, recorded {recorded[key]}"
        for workload, kernels in found.items()
        for kernel, numbers in kernels.items()
        for recorded in [record[workload].get(kernel, {"conflicts": 0, "sectors": 0})]
        for key, limit in (
            ("conflicts", recorded["conflicts"]),
            # Where small arrays begin in a sector is the allocator's choice.
            ("sectors", 1.05 * recorded["sectors"] + 64),
        )
        if numbers[key] > limit
    ]


@pytest.mark.skipif(
    not kernel_report.has_kernels(MODULE), reason="convlet was built without nvcc: no CUDA kernels"
)
def test_no_kernel_spills():
    """For every architecture in the module."""
    found = kernel_report.resources(MODULE)
    assert found.keys() == RECORD["resources"].keys()
    assert spills(found) == []


def test_no_kernel_costs_more():
    found = kernel_report.counts(build())
    assert found.keys() == RECORD["counts"].keys()
    assert worse(found, RECORD["counts"]) == []


def test_what_is_worse_is_told():
    dump = """arch = sm_80
 Function _ZN7convlet4cuda10sum_kernelEPf:
  REG:64 STACK:0 SHARED:0 LOCAL:0
arch = sm_90
 Function _ZN7convlet4cuda10sum_kernelEPf:
  REG:255 STACK:16 SHARED:0 LOCAL:0
 Function _ZN7convlet4cuda11draw_kernelEPf:
  REG:99 STACK:40 SHARED:0 LOCAL:0"""
    found = kernel_report.parse_resources(dump)
    assert spills(found) == ["sum_kernel for sm_90: a stack of 16 bytes"]
    record = {"add": {"sum_kernel": {"conflicts": 0, "sectors": 1000}}}
    for conflicts, sectors, found in ((0, 1000, 0), (1, 1000, 1), (0, 2000, 1), (1, 2000, 2)):
        now = {"add": {"sum_kernel": {"conflicts": conflicts, "sectors": sectors}}}
        assert len(worse(now, record)) == found


def test_every_kernel_is_counted():
    sources = (kernel_report.HERE.parent.parent / "csrc" / "cuda").glob("*.cu*")
    declared = re.compile(r"__global__[^{;]*?\b(\w+_kernel)\(")
    kernels = {name for path in sources for name in declared.findall(path.read_text())}
    counted = {kernel for kernels in RECORD["counts"].values() for kernel in kernels}
    assert counted == kernels


def test_the_table_is_that_of_the_record():
    assert kernel_report.documented()[1] == kernel_report.table(RECORD)
