"""Registers that nvcc spills, bank conflicts and memory traffic of every CUDA kernel: no worse than
what tests/simt/kernels.json says, which docs/performance.md has as a table.

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


@pytest.mark.skipif(
    not kernel_report.has_kernels(MODULE), reason="convlet was built without nvcc: no CUDA kernels"
)
def test_no_kernel_spills():
    """For every architecture in the module; draw_kernel's stack is an array of the sine's."""
    found = kernel_report.resources(MODULE)
    stacks = {
        (kernel, architecture): needs["stack"]
        for kernel, by_architecture in found.items()
        for architecture, needs in by_architecture.items()
        if needs["stack"]
    }
    assert {kernel for kernel, _ in stacks} <= {"draw_kernel"}, stacks
    assert all(stack <= 40 for stack in stacks.values()), stacks


def test_no_kernel_costs_more():
    """Bank conflicts and sectors of memory, in the emulator."""
    found = kernel_report.counts(build())
    assert found.keys() == RECORD["counts"].keys()
    worse = [
        f"{workload}: {kernel} has {numbers[key]} {key}, recorded {recorded[key]}"
        for workload, kernels in found.items()
        for kernel, numbers in kernels.items()
        for recorded in [RECORD["counts"][workload].get(kernel, {"conflicts": 0, "sectors": 0})]
        for key, limit in (
            ("conflicts", recorded["conflicts"]),
            # Where small arrays begin in a sector is the allocator's choice.
            ("sectors", 1.05 * recorded["sectors"] + 64),
        )
        if numbers[key] > limit
    ]
    assert not worse, "\n".join(worse)


def test_every_kernel_is_counted():
    sources = (kernel_report.HERE.parent.parent / "csrc" / "cuda").glob("*.cu*")
    declared = re.compile(r"__global__[^{;]*?\b(\w+_kernel)\(")
    kernels = {name for path in sources for name in declared.findall(path.read_text())}
    counted = {kernel for kernels in RECORD["counts"].values() for kernel in kernels}
    assert counted == kernels - NOT_COUNTED


# What no op of workloads.py runs: what only plans call, and the measurement of the peak.
NOT_COUNTED = {
    *("choose_kernel", "unpool_kernel", "chosen_sums_kernel"),
    *("copy_columns_kernel", "crop2d_kernel", "pad2d_kernel"),
    *("gather_kernel", "gather_labels_kernel", "gather_scale_kernel"),
    *("optimizer_kernel", "take_gradients_kernel", "step_results_kernel", "sum_parts_kernel"),
    *("first_non_finite_kernel", "set_kernel", "write_argument_kernel", "write_choices_kernel"),
    "fma_kernel",
}


def test_the_table_is_that_of_the_record():
    assert kernel_report.documented()[1] == kernel_report.table(RECORD)
