"""What every CUDA kernel needs, and what its accesses cost: kernels.json and its table.

    python tests/simt/kernel_report.py

after a build with nvcc for every architecture writes both (docs/cuda_kernels.md has the table). It
needs cuobjdump, which `pip install '.[test]'` brings.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from simt.library import HERE, build

RECORD = HERE / "kernels.json"
DOCUMENT = HERE.parent.parent / "docs" / "cuda_kernels.md"
PRODUCTS = ("product_kernel", "first_layer_kernel", "first_layer_gradient_kernel")
BEGIN, END = "<!-- kernels.json as a table -->", "<!-- end of it -->"


def has_kernels(module: Path) -> bool:
    return b".nv_fatbin" in module.read_bytes()


def kernel_of(symbol: str) -> str:
    """The name alone of a kernel, from the mangled one."""
    at = 0
    while number := re.compile(r"\D*?(\d+)").match(symbol, at):
        at = number.end() + int(number[1])
        name = symbol[number.end() : at]
        if name.endswith("_kernel"):
            return name
    raise ValueError(f"{symbol}: expected the name of a kernel")


def resources(module: Path) -> dict[str, dict[str, dict[str, int]]]:
    """By kernel and architecture: registers, bytes of stack (where registers are spilled) and of
    static shared memory; of a template the most of its instances."""
    tool = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin" / "cuobjdump"
    return parse_resources(
        subprocess.check_output([tool, "--dump-resource-usage", module], text=True)
    )


def parse_resources(output: str) -> dict[str, dict[str, dict[str, int]]]:
    """What `resources` gives, from the output of cuobjdump."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    name = architecture = ""
    for line in output.splitlines():
        if line.startswith("arch = "):
            architecture = line.split()[-1]
        elif line.startswith(" Function "):
            # What a function that is not inlined needs is in its callers' entries.
            name = kernel_of(line.split()[1]) if "_kernel" in line else ""
        elif name and (numbers := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", line)):
            of_kernel = found.setdefault(name, {}).setdefault(architecture, {})
            for key, value in zip(("registers", "stack", "shared"), numbers.groups(), strict=True):
                of_kernel[key] = max(of_kernel.get(key, 0), int(value))
    return found


def counts(library: Path) -> dict[str, dict[str, dict[str, int]]]:
    """By workload and kernel (workloads.py), in a process that may load the emulated device."""
    command = [sys.executable, HERE / "workloads.py", library]
    path = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the workloads do not run:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout)


def table(record: dict) -> str:
    """One row for each kernel, and one for each convolution's product."""
    totals: dict[str, dict[str, int]] = {}
    products = []
    for workload, kernels in sorted(record["counts"].items()):
        for kernel, numbers in kernels.items():
            total = totals.setdefault(kernel, dict.fromkeys(numbers, 0))
            for key, number in numbers.items():
                largest = key in ("threads", "shared")
                total[key] = max(total[key], number) if largest else total[key] + number
            if kernel in PRODUCTS and workload.startswith("conv2d"):
                products.append(f"| {workload} | {costs(numbers)} |")
    lines = [
        "| kernel | threads | registers, sm_80 / sm_90 / most | stack | shared memory, KiB |"
        " conflicts | sectors |",
        "|---|---|---|---|---|---|---|",
    ]
    for kernel in sorted(totals):
        total, needs = totals[kernel], record["resources"][kernel]
        registers = [needs[a]["registers"] if a in needs else "-" for a in ("sm_80", "sm_90")]
        most = max(need["registers"] for need in needs.values())
        stack = max(need["stack"] for need in needs.values())
        shared = (total["shared"] + max(need["shared"] for need in needs.values())) / 1024
        lines.append(
            f"| {kernel.removesuffix('_kernel')} | {total['threads']} |"
            f" {registers[0]} / {registers[1]} / {most} | {stack} | {shared:.1f} | {costs(total)} |"
        )
    lines += ["", "| product of | conflicts | sectors |", "|---|---|---|", *products]
    return "\n".join(lines)


def costs(numbers: dict[str, int]) -> str:
    conflicts = (
        f"{100 * numbers['conflicts'] / numbers['accesses']:.0f} %" if numbers["accesses"] else "-"
    )
    return f"{conflicts} | {numbers['sectors'] / max(numbers['needed'], 1):.2f}"


def documented() -> tuple[str, str, str]:
    """docs/cuda_kernels.md: what comes before the table, the table, what comes after it."""
    before, rest = DOCUMENT.read_text().split(BEGIN)
    inside, after = rest.split(END)
    return before, inside.strip("\n"), after


def write(record: dict) -> None:
    """kernels.json, a line for each kernel and each workload."""
    parts = []
    for part, rows in record.items():
        lines = ",\n".join(
            f"  {json.dumps(key)}: {json.dumps(row)}" for key, row in sorted(rows.items())
        )
        parts.append(f' "{part}": {{\n{lines}\n }}')
    RECORD.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def main() -> None:
    from convlet import _core

    module = Path(_core.__file__)
    if not has_kernels(module):
        raise SystemExit(f"{module} has no CUDA kernels: build it where there is nvcc")
    record = {"resources": resources(module), "counts": counts(build())}
    write(record)
    before, _, after = documented()
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table(record)}\n{END}{after}")


if __name__ == "__main__":
    main()
