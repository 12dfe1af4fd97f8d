"""What the instructions of csrc/cuda/ptx.cuh give: products and loads of random fragments, numbers
rounded to tf32, and asynchronous copies.

    python tests/simt/fragments.py write tests/simt/fragments.npz

on a machine with a GPU builds bugs.cu with nvcc and writes what the GPU gives. Where that file
exists, tests/test_simt.py holds the emulator against it.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from simt.library import build_for_gpu

WORDS = ("rows", "columns", "rounded", "copied")
OUTPUTS = {"bf16": np.float32, "tf32": np.float32} | dict.fromkeys(WORDS, np.uint32)


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    """Fragments of normal numbers, and matrices of any bits, by lane; numbers to be rounded, ties,
    the smallest ones and infinity among them."""
    rng = np.random.default_rng(seed)
    normal = [rng.standard_normal(n).astype(np.float32).view(np.uint32) for n in (128, 128, 64, 64)]
    pack = [high & 0xFFFF0000 | low >> 16 for low, high in (normal[:2], normal[2:])]
    numbers = (rng.standard_normal(92) * 10.0 ** rng.integers(-44, 38, 92)).astype(np.float32)
    ties = (rng.integers(1, 0x7F000, 32) << 12 | rng.integers(0, 2, 32) << 31).astype(np.uint32)
    special = np.array([0, -0.0, np.inf, -np.inf], np.float32)
    return {
        "a": pack[0],
        "b": pack[1],
        "c": rng.standard_normal(128).astype(np.float32),
        "matrices": rng.integers(0, 1 << 16, 256).astype(np.uint16),
        "numbers": np.concatenate([numbers, ties.view(np.float32), special]),
    }


def run(library: ctypes.CDLL, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    results = {name: np.zeros(128, kind) for name, kind in OUTPUTS.items()}
    arrays = [np.ascontiguousarray(a) for a in (*given.values(), *results.values())]
    library.simt_fragments(*(ctypes.c_void_p(array.ctypes.data) for array in arrays))
    return dict(zip(OUTPUTS, arrays[len(given) :], strict=True))


def _gpu() -> str:
    from convlet import _core

    return next(w for w in _core.device_description("cuda").split(", ") if w.startswith("sm_"))


def write(path: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        library = build_for_gpu(Path(folder) / "fragments.so", "bugs.cu", f"-arch={_gpu()}")
        given = inputs()
        results = run(ctypes.CDLL(str(library)), given)
    if not all(values.any() for values in results.values()):
        sys.exit("the kernel has not run")
    np.savez(path, **given, **results)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "write":
        sys.exit(__doc__)
    write(sys.argv[2])
