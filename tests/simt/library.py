"""Builds the CUDA backend for the emulator, and talks to it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "simt"


def build(folder: Path = BUILD, **definitions: str) -> Path:
    """The library, brought up to date in `folder`, with CMake definitions; needs g++."""
    scripts = Path(sysconfig.get_path("scripts"))
    cmake = scripts / "cmake"
    arguments = [f"-D{name}={value}" for name, value in definitions.items()]
    folder.mkdir(parents=True, exist_ok=True)
    commands = (
        [cmake, "-S", HERE, "-B", folder, "-G", "Ninja", "-DCMAKE_CXX_COMPILER=g++", *arguments]
        + [f"-DCMAKE_MAKE_PROGRAM={scripts / 'ninja'}"],
        [cmake, "--build", folder, "-j", str(os.cpu_count())],
    )
    with open(folder / "lock", "w") as lock:  # several runs of the tests may want it
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in commands:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if done.returncode:
                raise RuntimeError(f"the emulator cannot be built:\n{done.stdout[-6000:]}")
    return folder / "libconvlet_simt.so"


def build_bugs() -> Path:
    """The small kernels of the tests, for the emulator."""
    cuda = HERE.parent.parent / "csrc" / "cuda"
    sources = [HERE / "bugs.cu", HERE / "bugs_sm90.cu", cuda / "context.cu", cuda / "tensor_map.cu"]
    return build(BUILD.parent / "bugs", CONVLET_SIMT_SOURCES=";".join(map(str, sources)))


CSRC = HERE.parent.parent / "csrc"
NVCC = ["nvcc", "-std=c++17", "--expt-relaxed-constexpr", f"-I{CSRC}", f"-I{HERE.parent}"]


def build_for_gpu(path: Path, source: str, architecture: str) -> Path:
    """One file of those kernels for a GPU, named by an option of nvcc."""
    sources = [HERE / source, CSRC / "cuda" / "context.cu", CSRC / "cuda" / "tensor_map.cu"]
    flags = [architecture, "-Xcompiler=-fPIC", "-shared"]
    subprocess.run([*NVCC, *flags, *sources, "-o", path], check=True)
    return path


def compile_to_ptx(path: Path, source: str, architecture: str) -> None:
    """The same as PTX alone, which takes seconds: whether nvcc takes the source."""
    subprocess.run([*NVCC, architecture, "-ptx", HERE / source, "-o", path], check=True)


class Emulator:
    """The emulator in a library that is loaded."""

    def __init__(self, path: Path):
        self.library = ctypes.CDLL(str(path))
        self.library.simt_report.restype = ctypes.c_char_p
        self.library.simt_counts.restype = ctypes.c_char_p
        self.library.simt_conflicts.restype = ctypes.c_char_p

    def options(self, seed: int = 0, copies: str = "late", check: bool = True, count: bool = False):
        """How the next kernels run.

        seed: 0 runs threads in order, -1 in reverse, others in an order drawn from it; -1 and odd
        seeds let the fastest warp run ahead as far as barriers allow.
        copies: when a cp.async lands: "late", "early" or "random".
        check: whether every access is checked; count: whether bank conflicts are counted.
        """
        when = ("late", "early", "random").index(copies)
        self.library.simt_options(seed, when, check, count)

    def during_capture(self, function: Callable[[], None] | None) -> None:
        """Calls function() before each launch that becomes part of a graph, until it is None."""
        self.callback = ctypes.CFUNCTYPE(None)(function) if function else None
        self.library.simt_during_capture(self.callback)

    def refuse_launch(self, n: int = 1) -> None:
        """The n-th launch from now on fails and runs nothing; 0: none does."""
        self.library.simt_refuse_launch(n)

    def findings(self) -> str:
        """A line for each thing that was wrong since the last call."""
        report = self.library.simt_report().decode()
        self.library.simt_reset()
        return report

    def counts(self) -> dict[str, dict[str, int]]:
        """By kernel, since the last call: shared memory accesses and bank conflicts, sectors of
        global memory that were moved and that were needed; the largest block, in threads, and what
        it had of dynamic shared memory, in bytes."""
        names = ("accesses", "conflicts", "sectors", "needed", "threads", "shared")
        lines = self.library.simt_counts().decode().splitlines()
        split = (line.rsplit(" ", len(names)) for line in lines)
        return {kernel: dict(zip(names, map(int, rest), strict=True)) for kernel, *rest in split}

    def conflicts(self) -> list[str]:
        """Where the bank conflicts since the last call were: count, file:line and kernel."""
        return self.library.simt_conflicts().decode().splitlines()

    def stream(self, number: int | None = None) -> Stream:
        """A new stream, as some library makes one, or the one with this number."""
        self.library.simt_stream.restype = ctypes.c_void_p
        return Stream(self, self.library.simt_stream() if number is None else number)

    def device(self) -> int:
        """The calling thread's GPU, of two."""
        return self.library.simt_device()

    def set_device(self, device: int) -> None:
        """Chooses it, as `torch.cuda.set_device` does."""
        self.library.simt_set_device(device)

    def allocations(self) -> int:
        """How many blocks of the device's memory are in use."""
        self.library.simt_allocations.restype = ctypes.c_size_t
        return self.library.simt_allocations()


class Stream:
    """A stream of the emulator's by its number."""

    def __init__(self, emulator: Emulator, number: int):
        self.library, self.number = emulator.library, number
        self.library.simt_end_capture.restype = ctypes.c_void_p
        self.library.simt_waits.restype = ctypes.c_size_t

    def set_lazy(self, lazy: bool) -> None:
        """Whether it runs nothing before somebody waits for it."""
        self.library.simt_set_lazy(ctypes.c_void_p(self.number), lazy)

    def run(self) -> None:
        """Runs what it has got so far."""
        self.library.simt_run_stream(ctypes.c_void_p(self.number))

    def waits(self) -> int:
        """How often somebody has waited for it."""
        return self.library.simt_waits(ctypes.c_void_p(self.number))

    def begin_capture(self) -> None:
        self.library.simt_begin_capture(ctypes.c_void_p(self.number))

    def end_capture(self) -> ctypes.c_void_p:
        """The graph of what it has got since."""
        return ctypes.c_void_p(self.library.simt_end_capture(ctypes.c_void_p(self.number)))

    def replay(self, graph: ctypes.c_void_p) -> None:
        self.library.simt_replay(graph)
