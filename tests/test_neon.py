"""The NEON kernels, run by an emulated ARM processor, compute what this machine's baseline does."""

import datetime
import re
from pathlib import Path

import pytest

import isa_cases
from convlet import _core
from emulated.neon.emulator import Emulator

HEADER = (Path(__file__).parents[1] / "csrc" / "ops" / "kernels.h").read_text()
# No result to compare; and nobody asks, as it adds no residual.
MEASURES = {"fma_peak", "conv2d_winograd_backward_input.in_place"}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    return Emulator(tmp_path_factory.mktemp("neon"))


@pytest.fixture(scope="module")
def differences(emulator):
    """{family: (the cases whose results differ, the number of cases)}"""

    def choose(name):
        if name == "neon":
            _core.use_kernels(emulator.kernels)
        else:
            _core.set_isa(name)

    found = {f: isa_cases.differences("neon", f, choose) for f in isa_cases.FAMILIES}
    if emulator.failure:
        raise emulator.failure
    return found


@pytest.mark.parametrize("family", isa_cases.FAMILIES)
def test_agrees_with_baseline(differences, family):
    wrong, count = differences[family]
    assert count > 0
    assert wrong == []


def test_every_kernel_has_run(emulator, differences):
    ways, members = (
        re.findall(r"\(\*(\w+)\)\(", re.search(rf"struct {name} {{(.*?)\n}};", HEADER, re.S)[1])
        for name in ("PreparedConv2d", "Kernels")
    )
    prepared = re.search(r"  PreparedConv2d (.*);", HEADER)[1].split(", ")
    names = members + [f"{name}.{way}" for name in prepared for way in ways]
    assert max(emulator.calls) < len(names)
    assert {name for i, name in enumerate(names) if not emulator.calls[i]} == MEASURES


def test_only_tables_of_kernels_are_taken():
    with pytest.raises(TypeError, match='expected a capsule "convlet.Kernels", got "datetime'):
        _core.use_kernels(datetime.datetime_CAPI)
    with pytest.raises(TypeError):
        _core.use_kernels("neon")
