"""`pytest --device simt` and `pytest --device cuda`: the ordinary tests on another device.

simt is the CUDA backend built by g++ for the emulator of tests/simt: the real kernels, on the CPU,
with every access checked. CONVLET_SIMT_LIBRARY names a library that is built already; a seed in
CONVLET_SIMT_SEED shuffles threads and blocks, and when asynchronous copies land.
"""

import os
import shutil
import sys
from importlib import import_module
from pathlib import Path

from convlet import _core

# The files whose tests say something about a device. The others are about the CPU's instruction
# sets and threads, about Python above the plans, or about files.
FILES = (
    "activation",
    "activation_layers",
    "attention",
    "augment",
    "batch_norm",
    "batch_norm_fusion",
    "branches",
    "broadcast",
    "byte_images",
    "capture",
    "conv2d",
    "conv2d_pool",
    "cuda_arrays",
    "cuda_libraries",
    "current_device",
    "dense",
    "dropout",
    "elementwise_loss",
    "first_layer",
    "focal_loss",
    "group_norm",
    "launch_errors",
    "layer_norm",
    "matmul",
    "optimizer",
    "parameter",
    "parameter_groups",
    "plan",
    "plan_update",
    "pool2d",
    "products",
    "random_layers",
    "recurrent",
    "reduce",
    "reduction",
    "resident",
    "rows",
    "selftest",
    "separable",
    "sm90",
    "sm90_choice",
    "sm90_tiles",
    "softmax",
    "softmax_cross_entropy",
    "symbolic_ops",
    "torch_training",
    "training",
    "training_formulas",
    "training_optimizers",
    "training_updates",
    "transpose",
    "unary",
    "upsample2d",
    "value_loss",
)

# Those of what the CPU has no counterpart of.
NOT_ON_CPU = (
    *("cuda_arrays", "cuda_libraries", "current_device", "launch_errors", "sm90", "sm90_choice"),
)
# Those that need the emulator's streams or counts, or libraries that need a GPU.
ONLY_ON = {
    "cuda_arrays": "simt",
    "cuda_libraries": "cuda",
    "current_device": "simt",
    "launch_errors": "simt",
    "sm90_choice": "simt",
}

# What they compare with, besides torch.
NEEDS = {"augment": "scipy"}

# Tests in those files that are about the CPU all the same, by a part of their name, and why.
NOT_HERE = {
    "threads": "one thread and many: a GPU has no such choice",
    "overlap": "copies of the arrays are given to the device, so they never overlap",
}

_device = "cpu"
_emulator = None


def device() -> str:
    return _device


def start(device: str) -> None:
    global _device, _emulator
    _device = device
    if device == "simt":
        from simt.library import Emulator, build

        path = os.environ.get("CONVLET_SIMT_LIBRARY") or build()
        _emulator = Emulator(Path(path))
        set_options()
        _core.load_device(str(path))
    if device != "cpu":
        _core.set_op_device(device)


def _cannot_be_built(name: str) -> bool:
    """Tests with kernels of their own need nvcc, and the GPU that those are for."""
    there = shutil.which("nvcc") and ", sm_90," in _core.device_description("cuda")
    return name == "sm90_tiles" and not there


def is_left_out(path: Path) -> bool:
    """Whether a file has nothing for this device. It is not even imported: a machine with a GPU may
    lack what the other tests need."""
    name = path.stem.removeprefix("test_")
    if _device == "cpu" or not path.name.startswith("test_"):
        return False
    if name in NEEDS:
        try:
            import_module(NEEDS[name])
        except ImportError:
            print(f"{path.name} needs {NEEDS[name]}, which is not installed", file=sys.stderr)
            return True
    return name not in FILES


def select(config, items) -> None:
    """Keeps the tests that apply, and of them what --part asks for; the parameters of the fixture
    `isa` are one and the same here."""
    chosen, others = [], []
    first_isa = _core.supported_isas()[0]
    for item in items:
        name = item.path.stem.removeprefix("test_")
        if _device == "cpu":
            (others if name in NOT_ON_CPU else chosen).append(item)
            continue
        isa = getattr(item, "callspec", None) and item.callspec.params.get("isa", first_isa)
        unfit = any(part in item.name for part in NOT_HERE) or (isa and isa != first_isa)
        unfit = unfit or ONLY_ON.get(name, _device) != _device
        unfit = unfit or (_device == "cuda" and _cannot_be_built(name))
        (others if name not in FILES or unfit else chosen).append(item)
    part, parts = map(int, config.getoption("--part").split("/"))
    items[:] = chosen[part::parts]
    del chosen[part::parts]
    others += chosen
    config.hook.pytest_deselected(items=others)


def emulator():
    """The emulator that the tests run on."""
    return _emulator


def set_options(count: bool = False) -> None:
    """Of the emulator, by CONVLET_SIMT_SEED; count: whether kernels' accesses are counted."""
    seed = int(os.environ.get("CONVLET_SIMT_SEED", "0"))
    _emulator.options(seed, "random" if seed else "late", count=count)


def findings() -> str:
    return _emulator.findings() if _emulator else ""
