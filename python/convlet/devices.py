"""Which device a model runs on, and whether its kernels can be trusted there."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from convlet import __version__, _core, selftest
from convlet.utils.files import write_whole

# The architectures on which the whole test suite has run on real hardware, as the records under
# bench/results/gpu show. Elsewhere the CUDA kernels have run in the emulator of tests/simt alone.
PROVEN: frozenset[str] = frozenset()

SWITCH = "CONVLET_UNPROVEN_CUDA"


def resolve_device(device: Any) -> str:
    """The device for "auto", "cpu" or "cuda"; ValueError with the reason and the fix when it cannot
    be had.

    Where tests have chosen a device for functional ops ("simt"), "auto" is that one, and it can be
    named.
    """
    chosen = _core.op_device()
    if chosen != "cpu" and device in ("auto", chosen):
        return chosen
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"compile: device: expected 'auto', 'cpu' or 'cuda', got {device!r}")
    if device == "cpu":
        return "cpu"
    if device == "auto" and not _any_can_be_used():
        return "cpu"
    reason = why_not_cuda()
    if not reason:
        return "cuda"
    if device == "auto":
        return "cpu"
    raise ValueError(
        f"compile: device: 'cuda' cannot be used: {reason}; use device='cpu' or 'auto'"
    )


def why_not_cuda() -> str:
    """Why CUDA cannot be used here, and what helps; "" when it can.

    The first use on a device, with a driver and a version of convlet, runs the self-test.
    """
    try:
        description = _core.device_description("cuda")
    except (ValueError, RuntimeError) as error:
        return str(error).partition(": ")[2]
    if not proven(description) and os.environ.get(SWITCH) != "1":
        return (
            f"the kernels have not yet run on real hardware like this ({description}), only in an "
            f"emulator; {SWITCH}=1 uses them all the same"
        )
    failed = verdict(description)
    if failed:
        return f"its self-test has failed ({'; '.join(failed)}); `convlet doctor --selftest` again"
    return ""


def _any_can_be_used() -> bool:
    """Whether there can be a GPU to use. To ask what there is takes some of its memory, and a
    process that has asked cannot use it after a fork."""
    return bool(PROVEN) or os.environ.get(SWITCH) == "1"


def proven(description: str) -> bool:
    """Whether the kernels have run on this architecture."""
    return any(f"{name}," in description for name in PROVEN)


def verdict(description: str, *, again: bool = False, device: str = "cuda") -> list[str]:
    """What the self-test found on this device, now or when it last ran with this version, driver
    and device; nothing when all is well."""
    path = _cache() / "selftest.json"
    key = f"{description} convlet {__version__} {int(Path(_core.__file__).stat().st_mtime)}"
    if os.environ.get("CONVLET_SM90") == "1":  # other kernels
        key += " CONVLET_SM90"
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    if not isinstance(known, dict):
        known = {}
    if again or not isinstance(known.get(key), list):
        known[key] = selftest.failures(device)
        with contextlib.suppress(OSError):  # it runs again next time
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(known, indent=1))
    return known[key]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convlet"
