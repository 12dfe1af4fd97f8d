"""What the documents quote is what the code says, and what they show runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def quotes():
    """(file, code) of every block in adding_an_op.md; its first line names the file."""
    page = ROOT / "docs" / "adding_an_op.md"
    found = [block for language in ("cpp", "python") for block in blocks(page, language)]
    return [re.match(r"(?://|#) (\S+)\n(.*)", block, re.DOTALL).groups() for block in found]


@pytest.mark.parametrize(("file", "code"), quotes())
def test_quoted_code_is_in_the_file(file, code):
    def words(text):  # a formatter may break lines elsewhere
        return re.sub(r"\s+", "", text)

    assert words(code) in words((ROOT / file).read_text())


def test_the_page_quotes_every_step():
    assert len(quotes()) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    named = re.findall(r"`((?:csrc|python|tests|docs|examples|bench)/[\w./]+\.\w+)`", text)
    for target in links:
        assert (page.parent / target).exists(), target
    for target in named:
        assert (ROOT / target).exists(), target


def run(code, folder):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("code", blocks(ROOT / "README.md", "python"))
def test_the_examples_in_the_readme_run(code, tmp_path):
    result = run(code, tmp_path)
    assert result.returncode == 0, result.stderr
    if "held-out accuracy" in code:
        assert re.search(r"^held-out accuracy 0\.9[789]", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("page", ["data.md", "extending.md", "training.md"])
def test_the_examples_of_a_page_run(tmp_path, page):
    """One after the other, as one script."""
    result = run("\n".join(blocks(ROOT / "docs" / page, "python")), tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_readme_and_ci_name_the_same_two_commands():
    for file in (ROOT / "README.md", ROOT / ".ci" / "run"):
        lines = [line.split(" >")[0].strip() for line in file.read_text().splitlines()]
        assert "pip install '.[test]'" in lines
        assert "pytest" in lines
