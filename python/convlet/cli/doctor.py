"""`convlet doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from argparse import Namespace

import numpy as np

from convlet import __version__, _core, devices, ops


def run(options: Namespace) -> None:
    """Say what convlet found on this machine; RuntimeError when a kernel gives wrong values."""
    print(f"convlet      {__version__} in {os.path.dirname(_core.__file__)}")
    print(f"Python       {platform.python_version()} on {platform.platform()}")
    for name in ("numpy", "Pillow", "safetensors"):
        print(f"{name:12} {importlib.metadata.version(name)}")
    print(f"CPU          {_core.device_description('cpu')}")
    print(
        f"instructions {_core.isa()}; this CPU can run {', '.join(_core.supported_isas())}"
        f" ({_setting('CONVLET_ISA')})"
    )
    print(f"bfloat16     {_bfloat16()}")
    print(f"threads      {_core.num_threads()} ({_thread_limits()})")
    failed = _cuda(options.selftest)
    print(f"self-check   {_self_check()}")
    if failed:
        raise RuntimeError(f"the self-test of CUDA has failed ({'; '.join(failed)})")


def _bfloat16() -> str:
    try:
        return _core.device_description("cpu", "bfloat16")
    except ValueError as reason:
        return f"no: {reason}"


def _cuda(selftest: bool) -> list[str]:
    """What there is of CUDA, and whether device='cuda' uses it; with `selftest`, what its kernels
    compute here. Returns what that found wrong."""
    failed: list[str] = []
    try:
        description = _core.device_description("cuda")
    except (ValueError, RuntimeError) as error:
        print(f"CUDA         no: {str(error).partition(': ')[2]}")
        return failed
    print(f"CUDA         {description}")
    if selftest:
        failed = devices.verdict(description, again=True)
        for line in failed:
            print(f"             wrong: {line}")
        print(f"self-test    {'failed' if failed else 'every family of kernels agrees'} on cuda")
    ran = ", ".join(sorted(devices.PROVEN)) or "none yet: only in the emulator"
    print(f"hardware     kernels have run on {ran}")
    if ", sm_90," in description:
        print(f"Hopper       {_hopper()}")
    print(f"device=cuda  {devices.why_not_cuda() or 'is used'}")
    return failed


def _hopper() -> str:
    kernels = "conv2d in bfloat16 with the instructions of sm_90a, only in the emulator so far:"
    is_on = os.environ.get("CONVLET_SM90") == "1"
    return f"{kernels} {'on' if is_on else 'off'} ({_setting('CONVLET_SM90')})"


def _setting(name: str) -> str:
    return f"{name}={os.environ[name]}" if name in os.environ else f"{name} is not set"


def _thread_limits() -> str:
    allowed, quota = _core.cpu_limits()
    cpus = f"{allowed} of {os.cpu_count()} CPUs allowed to this process"
    limit = f"control group grants {quota:g}" if quota else "no limit from a control group"
    return f"{_setting('CONVLET_NUM_THREADS')}; {cpus}; {limit}"


def _self_check() -> str:
    """A convolution of small whole numbers, exact in float32, on every instruction set."""
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 9, 11, 7)).astype(np.float32)
    w = rng.integers(-4, 5, (3, 3, 7, 19)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    expected = np.einsum("npqcrs,rsck->npqk", windows, w)
    before = _core.isa()
    try:
        for isa in _core.supported_isas():
            _core.set_isa(isa)
            if not np.array_equal(ops.conv2d(x, w), expected):
                raise RuntimeError(f"conv2d gives wrong values with {isa} on this CPU")
    finally:
        _core.set_isa(before)
    return f"conv2d is exact with {', '.join(_core.supported_isas())}"
