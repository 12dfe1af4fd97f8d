"""The NEON kernels on a machine that is no ARM: compiled by Zig's clang, run by Unicorn.

Unicorn is QEMU's processor emulation as a library. The emulated processor sees this process' memory
at the same addresses, so that a kernel finds the arrays that it is given where they are: whatever
can choose an instruction set, single ops or whole training, can choose this one.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
import sys
from collections import Counter
from ctypes.util import find_library
from pathlib import Path

import unicorn
from elftools.elf.elffile import ELFFile
from unicorn import arm64_const as arm

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
# The first line as in CMakeLists.txt; the second, because the programs have no libraries.
FLAGS = (
    *(
        "-std=c++17",
        "-O3",
        "-DNDEBUG",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-ffp-contract=off",
    ),
    *("-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-ffunction-sections"),
    *("-fPIC", f"-I{HERE}", f"-I{ROOT / 'csrc'}"),
)
PAGE = 1 << 24  # how much of the process' memory becomes visible at a time
IMAGE = 0x5000_0000_0000  # where the ARM program lies: far from where Linux puts anything
STACK = IMAGE + (1 << 32)
STACK_SIZE = 8 << 20
RETURN = STACK + STACK_SIZE - 16  # a place without code: coming back to it ends the run
LIBM = ctypes.CDLL(find_library("m"))
FUNCTIONS = ((LIBM.sin, 1), (LIBM.cos, 1), (LIBM.pow, 2))  # in the order of guest.cpp's numbers
Emulate = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p)


for function, count in FUNCTIONS:
    function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double] * count


def bits_to_double(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def double_to_bits(value):
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def build(path, target, sources, *link):
    """Compiles the sources and links them, without any library, into the file ``path``."""
    folder = path.parent
    cache = {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}

    def zig(*arguments):
        command = [sys.executable, "-m", "ziglang", *map(str, arguments)]
        ran = subprocess.run(
            command,
            env=os.environ | cache,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if ran.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{ran.stdout[-6000:]}")

    objects = [folder / f"{target}-{source.stem}.o" for source in sources]
    for source, compiled in zip(sources, objects, strict=True):
        zig("c++", "-target", target, *FLAGS, "-c", source, "-o", compiled)
    zig("cc", "-target", target, "-nostdlib", "-Wl,--gc-sections", *link, *objects, "-o", path)


def program(folder):
    """Compiles the NEON table and what calls it: a program for ARM Linux."""
    path, csrc = Path(folder) / "neon", ROOT / "csrc"
    # The bodies call functions of these two ops; the linker names it when there are more.
    ops = [csrc / "ops" / "augment.cpp", csrc / "ops" / "optimizer.cpp"]
    sources = [HERE / "guest.cpp", csrc / "cpu" / "table_neon.cpp", *ops]
    place = f"-Wl,--image-base={IMAGE:#x}"
    build(path, "aarch64-linux-musl", sources, "-static", "-Wl,-e,call", place)
    return path


def library(folder):
    """Compiles the table that forwards its kernels to the emulator, for this machine."""
    path = Path(folder) / "host.so"
    build(path, f"{platform.machine()}-linux-musl", [HERE / "host.cpp"], "-shared")
    return path


class Emulator:
    """An ARM processor that runs the kernels of a program as `program` makes it.

    ``kernels`` is a capsule for ``_core.use_kernels``. ``calls[i]`` is how often member i of
    Kernels (after the name) has run; ``failure`` is the first exception of such a run. The emulator
    must stay alive while the table is in use.
    """

    def __init__(self, folder):
        self.calls = Counter()
        self.failure = None
        self.processor = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self.processor.ctl_set_cpu_model(arm.UC_CPU_ARM64_MAX)
        self.processor.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self._show_memory)
        self.processor.hook_add(unicorn.UC_HOOK_INTR, self._compute)
        self.entry = self._load(program(folder))
        self.processor.mem_map(STACK, STACK_SIZE)

        self._library = ctypes.CDLL(str(library(folder)))
        self._library.table.restype = ctypes.c_void_p
        self._emulate = Emulate(self._run)
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
        self._name = ctypes.c_char_p(b"convlet.Kernels")
        self.kernels = make(self._library.table(self._emulate), self._name, None)

    def _load(self, path):
        with open(path, "rb") as file:
            elf = ELFFile(file)
            segments = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
            end = max(s["p_vaddr"] + s["p_memsz"] for s in segments)
            self.processor.mem_map(IMAGE, (end - IMAGE + 0xFFFF) & ~0xFFFF)
            for segment in segments:
                self.processor.mem_write(segment["p_vaddr"], segment.data())
            return elf["e_entry"]

    def _show_memory(self, processor, access, address, size, value, data):
        """Lets the processor see the memory around an address that it wants for the first time."""
        for first in {address // PAGE * PAGE, (address + size - 1) // PAGE * PAGE}:
            processor.mem_map_ptr(first, PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE, first)
        return True

    def _compute(self, processor, interrupt, data):
        """Calls a function of mathematics for the program."""
        function, count = FUNCTIONS[processor.reg_read(arm.UC_ARM64_REG_X8)]
        registers = (arm.UC_ARM64_REG_D0, arm.UC_ARM64_REG_D1)[:count]
        arguments = [bits_to_double(processor.reg_read(register)) for register in registers]
        processor.reg_write(arm.UC_ARM64_REG_D0, double_to_bits(function(*arguments)))

    def _run(self, entry, arguments, result):
        try:
            for register, value in (
                (arm.UC_ARM64_REG_X0, entry),
                (arm.UC_ARM64_REG_X1, arguments),
                (arm.UC_ARM64_REG_X2, result or 0),
                (arm.UC_ARM64_REG_X30, RETURN),
                (arm.UC_ARM64_REG_SP, RETURN),
            ):
                self.processor.reg_write(register, value)
            self.processor.emu_start(self.entry, RETURN)
            self.calls[entry] += 1
        except BaseException as failure:  # the kernel's caller, in C++, cannot take it
            self.failure = self.failure or failure
