"""The scripts in examples/ run, and what they print is what their texts promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def output_of(name, folder):
    result = subprocess.run(
        [sys.executable, EXAMPLES / name], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_train_digits(tmp_path):
    output = output_of("train_digits.py", tmp_path)
    assert float(re.search(r"held-out accuracy ([\d.]+)", output)[1]) >= 0.975


def test_digits_recipe(tmp_path):
    output = output_of("digits_recipe.py", tmp_path)
    assert float(re.search(r"held-out accuracy ([\d.]+)", output)[1]) >= 0.99


def test_ops_on_torch(tmp_path):
    output = output_of("ops_on_torch.py", tmp_path)
    assert "Tensor (8, 32, 32, 16)" in output
    differences = [float(text) for text in re.findall(r":\s+([\d.]+e-\d+)", output)]
    assert len(differences) == 2
    assert max(differences) < 1e-5


def test_save_and_classify(tmp_path):
    output = output_of("save_and_classify.py", tmp_path)
    label, name = re.search(r"labelled (\d), named (\d) with \d", output).groups()
    assert label == name
    assert len(re.findall(r"^  \d  [\d.]+%$", output, re.MULTILINE)) == 5


def test_every_example_is_tested():
    tested = Path(__file__).read_text()
    assert all(f'"{path.name}"' in tested for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_stay_short(path):
    assert len(path.read_text().splitlines()) <= 50
