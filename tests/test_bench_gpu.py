"""The benchmark's way on a GPU, in the emulator: what it calls and how it reports. Times mean
nothing here."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from bench import __main__ as bench_main
from bench import peers
from bench.peers import torch as torch_peer
from bench.peers import torch_ops

from simt.library import build

ROOT = Path(__file__).resolve().parent.parent

# A network small enough for the emulator, in a process of its own: the emulator stays its device.
TINY = """
from bench import contest, networks
from bench.peers import convlet, torch64

convlet.BATCHES_OF_EPOCH = 2
steps = (("conv", 4, 3, 1, 0, True), ("relu",), ("max_pool", 2, 2, 0), ("flatten",), ("dense", 3))
network = networks.Network("tiny", "tiny", (6, 6, 2), 3, steps, "adam", 1e-3)
weights, (images, labels) = networks.weights(network), networks.batch(network, 4)
reference = torch64.train("default", network, weights, images, labels)
losses = [reference() for _ in range(3)]
for setting, precision in (("cuda", "float32"), ("cuda bfloat16", "bfloat16")):
    step = convlet.train(setting, network, weights, images, labels)
    contest.agree("train", losses, [step() for _ in range(3)], precision)
    assert len(step.times(0.0, 2)) == 2
logits = torch64.infer("default", network, weights, images)()
contest.agree("infer", [logits], [convlet.infer("cuda", network, weights, images)()])
"""


@pytest.fixture(scope="module")
def environment():
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"CONVLET_SIMT_LIBRARY": str(build()), "PYTHONPATH": path}


def run(environment, *arguments):
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_train_and_infer(environment):
    run(environment, "-c", TINY)


def test_ops_from_the_command_line(environment, tmp_path):
    record = tmp_path / "record.json"
    arguments = ["--cases", "avg_pool2d 13x13x64", "softmax_cross_entropy 10 ", "--batches", "1"]
    timing = ["--rounds", "1", "--seconds", "0", "--budget", "1000", "--json", str(record)]
    output = run(environment, "-m", "bench", "ops", "--device", "cuda", *arguments, *timing)
    assert "the most that this GPU can" in output
    content = json.loads(record.read_text())
    assert len(content["cases"]) == 2
    for case in content["cases"]:
        entries = {(e["peer"], e["setting"]): e for e in case["entries"]}
        assert entries["convlet", "cuda"]["median_ms"] > 0
        assert "CUDA" in entries["torch", "cuda channels_last"]["error"]


def test_the_script_asks_for_what_there_is():
    """Every line of bench/gpu.sh that runs the benchmark: its options, peers and their settings."""
    script = (ROOT / "bench" / "gpu.sh").read_text().replace("\\\n", " ")
    values = dict(re.findall(r'\b(\w+)="(torch:[^"]*)"', script))
    lines = re.findall(r"\bbench (\w+) \d+ (\w+ --.*)", script)
    assert [name for name, _ in lines] == ["ops", "ops_sm90", "train", "infer", "compiled"]
    for _, arguments in lines:
        for name, value in values.items():
            arguments = arguments.replace(f"${name}", value)
        options = bench_main.parse([*shlex.split(arguments), "--device", "cuda"])
        offered = (torch_ops if options.what == "ops" else torch_peer).SETTINGS[options.what]
        for peer in options.peers:
            setting = peer.partition(":")[2]
            assert not setting or setting in offered
            assert not setting or peers.fits(setting, "cuda", options.precision)
        assert list(bench_main.cases(options))
