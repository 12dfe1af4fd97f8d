"""The formatters and linters agree with every file of the repository."""

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
