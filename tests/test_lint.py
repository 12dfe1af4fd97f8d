"""The formatters and linters agree with every file of the repository; imports go one way."""

import ast
import graphlib
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))


def run(*command):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]


def test_ruff_check():
    run(SCRIPTS / "ruff", "check", "--no-cache", ".")


def test_ruff_format():
    run(SCRIPTS / "ruff", "format", "--no-cache", "--check", ".")


def test_clang_format():
    kinds = (".h", ".cpp", ".cuh", ".cu")
    folders = (ROOT / "csrc", ROOT / "tests" / "simt")
    sources = [p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix in kinds]
    assert len(sources) > 50
    run(SCRIPTS / "clang-format", "--dry-run", "-Werror", *sources)


# What needs each other: a layer called on arrays is a model, an op called on symbolic tensors is a
# layer, and a GPU's ops are offered only where the self-test, which runs ops, has passed.
TOGETHER = ("layers", "models", "ops", "_interop", "_cuda_arrays", "devices", "selftest")


def imported(path):
    """The modules of convlet that a file imports, in functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.module
                yield f"{node.module}.{alias.name}"


def test_imports_go_one_way():
    package = ROOT / "python"
    files = {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in package.rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    }
    assert len(files) > 100

    def room(module):
        parts = module.split(".")
        return "together" if parts[1] in TOGETHER or module.endswith("drawing") else module

    needs = {}
    for module, path in files.items():
        needed = {room(name) for name in imported(path) if name in files}
        needs.setdefault(room(module), set()).update(needed - {room(module)})
    graphlib.TopologicalSorter(needs).prepare()  # CycleError names the modules of a circle
