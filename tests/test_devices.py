"""Which device is used, and the self-test that decides whether CUDA may be."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from convlet import _core, devices, ops, selftest
from convlet.cli import doctor

RECORDS = Path(__file__).resolve().parent.parent / "bench" / "results" / "gpu"
H100 = "NVIDIA H100, sm_90, 132 multiprocessors, 79 GB, driver 13.0, float32"


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Pretends that there is a GPU; its kernels are the CPU's."""
    described = _core.device_description
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(devices.SWITCH, raising=False)
    monkeypatch.setattr(
        _core, "device_description", lambda d, *p: H100 if d == "cuda" else described(d, *p)
    )
    failures = selftest.failures
    monkeypatch.setattr(selftest, "failures", lambda device: failures("cpu", ["float32"]))
    return tmp_path / "convlet" / "selftest.json"


def test_the_cpu_passes_its_own_test():
    assert selftest.failures("cpu", ["float32"]) == []


def test_a_wrong_kernel_fails_the_test(monkeypatch):
    dense = ops.dense
    calls = []

    def wrong(x, w, bias):
        calls.append(1)
        y = dense(x, w, bias)
        return y if len(calls) % 2 else y + np.float32(0.1)

    monkeypatch.setattr(ops, "dense", wrong)
    (line,) = selftest.failures("cpu", ["float32"])
    assert line.startswith("dense and matmul: differs from the CPU by ")


def test_kernels_that_have_not_run_on_hardware_are_off(gpu):
    assert devices.resolve_device("auto") == "cpu"
    with pytest.raises(ValueError, match=r"'cuda' cannot be used: .* not yet run on real hardware"):
        devices.resolve_device("cuda")
    assert not gpu.exists()


def test_auto_does_not_look_for_a_gpu_that_it_would_not_use(monkeypatch):
    def look(*arguments):
        raise AssertionError("the driver was asked")

    monkeypatch.delenv(devices.SWITCH, raising=False)
    monkeypatch.setattr(_core, "device_description", look)
    monkeypatch.setattr(devices, "PROVEN", frozenset())
    assert devices.resolve_device("auto") == "cpu"


def test_the_switch_and_the_record_turn_them_on(gpu, monkeypatch):
    monkeypatch.setenv(devices.SWITCH, "1")
    assert devices.resolve_device("auto") == devices.resolve_device("cuda") == "cuda"
    monkeypatch.delenv(devices.SWITCH)
    monkeypatch.setattr(devices, "PROVEN", frozenset({"sm_90"}))
    assert devices.resolve_device("auto") == "cuda"
    monkeypatch.setattr(devices, "PROVEN", frozenset({"sm_9"}))
    assert devices.resolve_device("auto") == "cpu"


def test_doctor_ends_with_an_error_when_the_self_test_fails(gpu, monkeypatch, capsys):
    monkeypatch.setattr(devices, "verdict", lambda *a, **k: ["conv2d differs"])
    with pytest.raises(RuntimeError, match="self-test of CUDA has failed .conv2d differs."):
        doctor.run(Namespace(selftest=True))
    assert "wrong: conv2d differs" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["0", "1"])
def test_doctor_names_the_kernels_that_are_off(gpu, monkeypatch, capsys, value):
    monkeypatch.setenv("CONVLET_SM90", value)
    doctor.run(Namespace(selftest=False))
    output = capsys.readouterr().out
    assert "kernels have run on none yet: only in the emulator\n" in output
    state = "on" if value == "1" else "off"
    assert f"sm_90a, only in the emulator so far: {state} (CONVLET_SM90={value})\n" in output
    assert "device=cuda  the kernels have not yet run on real hardware like this" in output


def test_the_verdict_is_remembered(gpu, monkeypatch):
    monkeypatch.setenv(devices.SWITCH, "1")
    assert devices.resolve_device("cuda") == "cuda"
    (key,) = json.loads(gpu.read_text())
    assert H100 in key
    gpu.write_text(json.dumps({key: ["pooling: wrong"]}))
    with pytest.raises(ValueError, match=r"self-test has failed \(pooling: wrong\)"):
        devices.resolve_device("cuda")
    assert devices.verdict(H100, again=True) == []
    assert devices.resolve_device("cuda") == "cuda"
    monkeypatch.setenv("CONVLET_SM90", "1")
    gpu.write_text(json.dumps({key: ["pooling: wrong"]}))
    assert devices.resolve_device("cuda") == "cuda"  # of other kernels
    gpu.write_text("not json")
    assert devices.resolve_device("cuda") == "cuda"


def test_only_what_a_record_shows_counts_as_proven():
    records = [json.loads(path.read_text()) for path in RECORDS.glob("sm_*.json")]
    assert {record["architecture"] for record in records if record["passed"]} == devices.PROVEN
