"""The op tests again, on a build with the address and undefined-behaviour sanitizers."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11
import pytest

ROOT = Path(__file__).resolve().parent.parent
OPS = (
    "activation",
    "attention",
    "augment",
    "batch_norm",
    "broadcast",
    "conv2d",
    "core",
    "dense",
    "dropout",
    "elementwise_loss",
    "errors",
    "interop",
    "group_norm",
    "isa",
    "matmul",
    "layer_norm",
    "optimizer",
    "parameter",
    "plan",
    "plan_errors",
    "pool2d",
    "recurrent",
    "reduce",
    "reduction",
    "rows",
    "softmax",
    "softmax_cross_entropy",
    "threads",
    "transpose",
    "unary",
    "upsample2d",
    "value_loss",
)


def run(*command, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A directory for PYTHONPATH with the package built with sanitizers."""
    build = tmp_path_factory.mktemp("sanitizers")
    scripts = Path(sysconfig.get_path("scripts"))
    run(
        scripts / "cmake",
        *("-S", ROOT, "-B", build, "-G", "Ninja", "-DCMAKE_CXX_COMPILER=g++"),
        f"-DCMAKE_MAKE_PROGRAM={scripts / 'ninja'}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        "-DCONVLET_SANITIZE=address,undefined",
    )
    run(scripts / "cmake", "--build", build, "-j", os.cpu_count())
    return build / "pkg"


def preloaded():
    """The sanitizer's run-time library, and libstdc++, which it must find when it starts."""
    names = ("libasan.so", "libstdc++.so.6")
    return " ".join(run("g++", f"-print-file-name={name}").strip() for name in names)


# Its child may wait for ever for a lock of GCC 12's sanitizing allocator, which another thread
# holds at the fork. So may any child: of 900 forks of a Python without convlet, while a thread
# called malloc and free, three left one that hung. The C library's own allocator survives forks.
FORKS_AMID_ALLOCATIONS = (
    "tests/test_threads.py::test_a_forked_child_computes_while_the_parent_goes_on"
)


@pytest.mark.timeout(1800)
def test_op_tests_with_sanitizers(package):
    (module,) = (package / "convlet").glob("_core*.so")
    code = module.read_bytes()
    assert b"__asan_report_store4" in code
    assert b"__ubsan_handle_add_overflow" in code

    output = run(
        *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
        *(f"tests/test_{op}.py" for op in OPS),
        *("--deselect", FORKS_AMID_ALLOCATIONS),
        LD_PRELOAD=preloaded(),
        PYTHONPATH=str(package),
        # Python itself never frees everything; a size that is too large is an error, not the end.
        ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1",
        UBSAN_OPTIONS="print_stacktrace=1",
    )
    assert " passed" in output
    assert "failed" not in output
