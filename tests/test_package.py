"""The installed package: what it weighs, what it loads, and that its type stub is true."""

import ast
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

import convlet
from convlet import _core
from simt import kernel_report

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
MEGABYTE = 1 << 20


# Submodules are loaded when they are first used; these are what every program uses.
EVERYTHING = "import convlet, convlet.callbacks, convlet.datasets, convlet.models, convlet.ops"


class TestImport:
    def test_is_fast(self):
        """`import convlet` takes less than 0.2 s."""
        code = (
            "import time; start = time.perf_counter(); import convlet; "
            "print(time.perf_counter() - start)"
        )
        seconds = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
        assert min(seconds) < 0.2

    def test_is_small(self):
        # The kernel's own peak of this program; getrusage would count what forked it too.
        code = f"{EVERYTHING}; print(open('/proc/self/status').read())"
        status = subprocess.check_output([sys.executable, "-c", code], text=True)
        assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024 < 60

    def test_loads_no_heavy_module(self):
        code = f"import sys; {EVERYTHING}; print(*set(sys.modules))"
        loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
        packages = {name.partition(".")[0] for name in loaded}
        third_party = packages - set(sys.stdlib_module_names) - {"__main__"}
        expected = {"convlet", "numpy", "cython_runtime"}  # the last is made by numpy
        assert {name for name in third_party if not name.startswith("_")} <= expected

    def test_help_is_fast(self):
        """`convlet --help` takes less than 0.3 s."""
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            shown = subprocess.check_output([SCRIPTS / "convlet", "--help"], text=True)
            seconds.append(time.perf_counter() - start)
        assert "train" in shown
        assert min(seconds) < 0.3


class TestVersion:
    def test_there_is_one(self):
        line = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        assert convlet.__version__ == _core.__version__ == line[1]
        assert importlib.metadata.version("convlet") == line[1]


class TestStub:
    """_core.pyi says what _core has: every name, every argument in its order, every default."""

    stub = ast.parse((Path(convlet.__file__).parent / "_core.pyi").read_text())

    def definitions(self, body):
        return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}

    def arguments(self, node):
        """Names, and which of them have a default."""
        names = [a.arg for a in node.args.args if a.arg != "self"]
        defaults = len(node.args.defaults)
        return names, names[len(names) - defaults :] if defaults else []

    def bound_arguments(self, function):
        """The same, from the signature that pybind11 writes into the docstring."""
        signature = function.__doc__.splitlines()[0]
        inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
        names, defaults, depth, part = [], [], 0, ""
        for character in inside + ",":
            depth += (character in "([{") - (character in ")]}")
            if character != "," or depth:
                part += character
                continue
            name = part.split(":")[0].strip()
            if name and name != "self":
                names.append(name)
                if " = " in part:
                    defaults.append(name)
            part = ""
        return names, defaults

    def test_names(self):
        public = {name for name in dir(_core) if not name.startswith("_")}
        declared = {
            node.name
            for node in self.stub.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        }
        assert declared == public

    def test_functions(self):
        for name, node in self.definitions(self.stub.body).items():
            assert self.arguments(node) == self.bound_arguments(getattr(_core, name)), name

    @pytest.mark.parametrize("name", ["Graph", "State", "Plan", "Dataset", "Outputs"])
    def test_classes(self, name):
        bound = getattr(_core, name)
        (declared,) = (n for n in self.stub.body if isinstance(n, ast.ClassDef) and n.name == name)
        methods = self.definitions(declared.body)
        attributes = {n.target.id for n in declared.body if isinstance(n, ast.AnnAssign)}
        public = {n for n in vars(bound) if not n.startswith("_")}
        assert set(methods) - {"__init__"} | attributes == public
        for method, node in methods.items():
            assert self.arguments(node) == self.bound_arguments(getattr(bound, method)), method
        for attribute in attributes:
            assert inspect.isdatadescriptor(getattr(bound, attribute))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that the installed files came from, made again from them."""
    distribution = importlib.metadata.distribution("convlet")
    (tags,) = re.findall(r"^Tag: (.*)$", distribution.read_text("WHEEL"), re.MULTILINE)
    path = tmp_path_factory.mktemp("wheel") / f"convlet-{distribution.version}-{tags}.whl"
    files = {}
    for file in distribution.files:
        # The installer has added the script, the compiled Python files and its own notes.
        package = file.parts[0] == "convlet" and "__pycache__" not in file.parts
        if package or file.name in ("METADATA", "WHEEL", "entry_points.txt", "LICENSE"):
            files[str(file)] = file.read_binary()
        elif file.name == "RECORD":
            record = str(file)
    files[record] = "".join(f"{name},,\n" for name in (*files, record)).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


class TestWheel:
    def test_size(self, wheel):
        """A few MB; machine code for six GPU architectures, where nvcc built it, is most of it."""
        archive = zipfile.ZipFile(wheel)
        (module,) = (name for name in archive.namelist() if name.endswith(".so"))
        has_cuda = b".nv_fatbin" in archive.read(module)
        assert wheel.stat().st_size <= (30 if has_cuda else 5) * MEGABYTE

    @pytest.mark.skipif(
        not kernel_report.has_kernels(Path(_core.__file__)), reason="convlet was built without nvcc"
    )
    def test_architectures(self, wheel):
        """nvcc before 12.8 stops at sm_90 (docs/cuda.md)."""
        kernels = kernel_report.resources(Path(_core.__file__))
        found = {name for by_architecture in kernels.values() for name in by_architecture}
        until_90 = {"sm_80", "sm_86", "sm_89", "sm_90", "sm_90a"}
        assert found in (until_90, until_90 | {"sm_100", "sm_120"})

    def test_contents(self, wheel):
        names = zipfile.ZipFile(wheel).namelist()
        suffixes = {Path(name).suffix for name in names if name.startswith("convlet/")}
        assert suffixes <= {".py", ".pyi", ".typed", ".so", ".npz", ".md", ".txt"}
        assert {"convlet/py.typed", "convlet/_core.pyi", "convlet/datasets/digits.npz"} <= set(
            names
        )

    def test_it_can_be_repaired(self, wheel, tmp_path):
        """auditwheel turns it into a manylinux wheel without adding a library."""
        environment = os.environ | {"PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
        command = [SCRIPTS / "auditwheel", "repair", "-w", tmp_path, wheel]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (repaired,) = tmp_path.glob("*manylinux*.whl")
        names = zipfile.ZipFile(repaired).namelist()
        assert "convlet/__init__.py" in names
        assert not [name for name in names if name.startswith("convlet.libs/")]
