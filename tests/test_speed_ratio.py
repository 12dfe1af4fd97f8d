"""The short check of speed: its verdicts, and the check itself, printed with the summary."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench import check

from conftest import CLOSING_LINES
from convlet import _core

ROOT = Path(__file__).parents[1]


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """A function that makes the check see these ratios on record, and measure those."""

    def prepare(record, ratios):
        path = tmp_path / "ratios.json"
        entry = {"cpu": "a chip", "date": "2026-01-01", "ratios": record}
        path.write_text(json.dumps({_core.isa(): entry}))
        monkeypatch.setattr(check, "RECORD", path)
        monkeypatch.setattr(check, "measured", lambda *arguments: iter(ratios.items()))

    return prepare


def test_a_clear_loss_fails_and_is_named(recorded, capsys):
    recorded({"a": 2.0, "b": 1.0}, {"a": 1.59, "b": 0.81})
    assert check.check(sys.executable) == 1
    a, b = capsys.readouterr().out.splitlines()[1:]
    assert "1.59x  recorded 2.00x  A CLEAR LOSS" in a
    assert b.endswith("0.81x  recorded 1.00x")


def test_what_is_not_recorded_does_not_fail(recorded, capsys):
    recorded({"a": 2.0}, {"a": 1.61, "new": 0.1})
    assert check.check(sys.executable) == 0
    assert "no record" in capsys.readouterr().out


def test_a_low_ratio_is_measured_again(monkeypatch):
    ratios = iter([1.0, 1.2, 1.9, 5.0])

    class Pair:
        def __init__(self, *arguments):
            pass

        def ratio(self, rounds):
            return next(ratios)

    monkeypatch.setattr(check, "Pair", Pair)
    monkeypatch.setattr(check, "CASES", (("train", "M1", 32), ("train", "M2", 32)))
    record = {"train M1, batch 32": 2.0, "train M2, batch 32": 2.0}
    assert list(check.measured(sys.executable, "avx2", 1, record)) == [
        ("train M1, batch 32", 1.9),  # the third try is good enough
        ("train M2, batch 32", 5.0),
    ]


def test_there_is_a_record_of_every_case():
    for entry in check.load().values():
        assert list(entry["ratios"]) == [check.title(*case) for case in check.CASES]


def test_no_clear_loss(pytestconfig):
    ran = subprocess.run(
        [sys.executable, "-m", "bench", "check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    pytestconfig.stash[CLOSING_LINES] = ran.stdout.splitlines()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(ran.stdout.splitlines()) == 1 + len(check.CASES)
