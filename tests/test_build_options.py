"""What CMake says of CUDA where there is no nvcc, by -DCONVLET_CUDA."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11
import pytest

ROOT = Path(__file__).resolve().parent.parent


def configure(folder, choice, nvcc):
    """(whether it worked, what CMake said, in one line); nothing is compiled."""
    scripts = sysconfig.get_path("scripts")
    found = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    done = subprocess.run(
        ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", f"-DCONVLET_CUDA={choice}", *found],
        env=os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}", "CUDACXX": str(nvcc)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode == 0, " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("choice", "works", "message"),
    [
        ("AUTO", True, "-- CUDA: not built, no working nvcc was found (docs/cuda.md says how"),
        ("OFF", True, "-- CUDA: not built (CONVLET_CUDA=OFF)"),
        ("ON", False, "CUDA: no working nvcc was found and CONVLET_CUDA=ON; put it on the PATH"),
        ("YES", False, "CONVLET_CUDA: expected ON, OFF or AUTO, got YES"),
    ],
)
def test_without_nvcc(tmp_path, choice, works, message):
    configured, text = configure(tmp_path, choice, tmp_path / "nvcc")
    assert configured == works, text
    assert message in text
