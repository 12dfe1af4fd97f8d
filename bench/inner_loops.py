"""What the inner loops of the AVX-512 kernels cost, by counting instructions, on any machine: a
static prediction, not a measurement.

    python -m bench.inner_loops

disassembles the module that convlet imports, with binutils' nm and objdump, and prints
Markdown tables. The bound is that of a core like Skylake-SP: two 512-bit operations a cycle, of
them one shuffle; two loads; one store; four instructions (a comparison with its jump counts once, a
multiply-add with an indexed operand twice). Caches keep up, and latencies are hidden. Later cores
have as much of everything or more, but Zen 4 does one 512-bit multiply-add a cycle, half of the
peak here. "spills" are vectors read or written on the stack inside the loop.
"""

import argparse
import re
import subprocess
from collections import Counter

from convlet import _core

PRODUCTS = {"avx512": "Float32", "avx512bf16": "Bfloat16"}
# What a loop is for, and a part of its function's name; {p} is the product.
KERNELS = [
    ("peak", "fma_chains<{p}>"),
    ("tile 6x4, 3x3 and 1x1, dense", "tiles<{p}, 6, 4, false>"),
    ("the same, fetching what is next", "tiles<{p}, 6, 4, true>"),
    ("tile 5x4", "tiles<{p}, 5, 4, false>"),
    ("tile 4x4", "tiles<{p}, 4, 4, false>"),
    ("tile 8x3, 48 columns", "tiles<{p}, 8, 3, false>"),
    ("tile 10x2, 32 columns", "tiles<{p}, 10, 2, false>"),
    ("tile 9x2", "tiles<{p}, 9, 2, false>"),
    ("tile 10x1, 16 columns or fewer", "tiles<{p}, 10, 1, false>"),
    ("tile 1x16, dense layer of one sample", "tiles<{p}, 1, 16, false>"),
    ("first layer pooled, 32 channels", "pooled_windows<{p}, 2, 2>"),
    ("first layer pooled, 64 channels", "pooled_windows<{p}, 4, 1>"),
    ("chosen pixels, 64 channels", "picked_tile<5, 4>"),
    ("chosen pixels, 32 channels", "picked_tile<6, 2>"),
    ("depthwise, three taps in a row", "neighbours_tile<4>"),
    ("depthwise, other windows", "depthwise_tile<4>"),
    ("depthwise weight gradient, three taps in a row", "neighbours_weight_tile<4>"),
    ("depthwise weight gradient, other windows", "depthwise_weight_tile<4>"),
]
SHUFFLE = re.compile(r"v(perm|shuf|unpck|insert|extract|broadcastss\s+%|pbroadcast\w\s+%r)")
NO_PORT = re.compile(r"v(mov(aps|ups|dqa64|dqu64|dqa|dqu)|broadcast(ss|f32x4|f64x2))\s")


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def functions():
    """{name: (address, size)} of the module's functions."""
    pattern = re.compile(r"([0-9a-f]+) ([0-9a-f]+) [tTwW] (.*)")
    lines = map(pattern.match, output_of("nm", "-CS", _core.__file__).splitlines())
    found = {m[3]: (int(m[1], 16), int(m[2], 16)) for m in lines if m}
    if not found:
        raise SystemExit(f"{_core.__file__} is stripped: take the build that CONTRIBUTING.md shows")
    return found


def disassembled(address, size):
    """[(address, instruction)] of a function."""
    span = (f"--start-address={address}", f"--stop-address={address + size}")
    text = output_of("objdump", "-d", "--no-show-raw-insn", *span, _core.__file__)
    lines = (re.match(r"\s*([0-9a-f]+):\s+(.*)", line) for line in text.splitlines())
    return [(int(m[1], 16), m[2].partition("#")[0].strip()) for m in lines if m]


def innermost_loops(code):
    """The instructions of each loop that holds no other."""
    index = {address: i for i, (address, _) in enumerate(code)}
    spans = []
    for i, (address, line) in enumerate(code):
        jump = re.match(r"j\w+\s+([0-9a-f]+)", line)
        if jump and int(jump[1], 16) <= address and int(jump[1], 16) in index:
            spans.append((index[int(jump[1], 16)], i))
    for begin, end in spans:
        if not any((a, b) != (begin, end) and begin <= a and b <= end for a, b in spans):
            yield [line for _, line in code[begin : end + 1]]


def counts(loop):
    c = Counter()
    for i, line in enumerate(loop):
        name = line.split()[0]
        memory = "(" in line and name not in ("lea", "nop", "nopl", "nopw")
        store = (
            memory
            and re.search(r"\)(\{%k\d\})?$", line)
            and not name.startswith(("cmp", "test", "prefetch"))
        )
        multiplies = name.startswith(("vfmadd", "vfnmadd", "vdpbf16"))
        jump = name.startswith("j")
        fused = (
            jump and i > 0 and loop[i - 1].split()[0] in ("cmp", "test", "add", "sub", "dec", "inc")
        )
        c["instructions"] += not fused
        c["instructions"] += bool(memory and multiplies and re.search(r"\(%\w+,%", line))
        c["fma"] += multiplies
        c["loads"] += bool(memory and not store)
        c["stores"] += bool(store)
        c["spills"] += bool("zmm" in line and re.search(r"\(%r[sb]p", line))
        c["shuffles"] += bool(SHUFFLE.match(line))
        moves = NO_PORT.match(line) and not SHUFFLE.match(line)
        c["vector"] += name.startswith("v") and not moves
    return c


def cycles(c):
    return max(c["vector"] / 2, c["shuffles"], c["loads"] / 2, c["stores"], c["instructions"] / 4)


def costs():
    """(instruction set, kernel, counts) of the inner loop of each kernel that the module has."""
    found = functions()
    for isa, product in PRODUCTS.items():
        for title, part in KERNELS:
            part = f"::{isa}::" + part.format(p=f"convlet::{isa}::{product}")
            for name, span in found.items():
                loops = map(counts, innermost_loops(disassembled(*span))) if part in name else ()
                loops = [c for c in loops if c["fma"] and c["instructions"] < 100]
                if loops:
                    yield isa, title, min(loops, key=lambda c: (-c["fma"], cycles(c)))
                    break


def main():
    formatter = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=formatter).parse_args()
    before = None
    for isa, title, c in costs():
        if isa != before:
            print(f"| {isa} | multiply-adds | other vector | loads | spills | cycles | share |")
            print("|---|---|---|---|---|---|---|")
        before = isa
        row = (title, c["fma"], c["vector"] - c["fma"], c["loads"], c["spills"])
        cells = [*row, f"{cycles(c):.1f}", f"{c['fma'] / 2 / cycles(c):.0%}"]
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
