"""The benchmark: its description of the networks, its check of results, and a run from the command
line."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bench import __main__ as bench_main
from bench import contest, networks, op_cases, peers, report
from bench.peers import convlet_ops, torch64_ops
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "forward", "train", "parameters"),
    [
        # Of one image in MFLOP, counted by hand for M1 from its layers; the ResNets' parameters
        # are the published 11.17 M (CIFAR form) and 25,557,032.
        ("M1", 9.097216, 25.736448, 122_570),
        ("M2", 5.58848, 16.376064, 93_322),
        ("M3", 8.3776, 23.5776, 315_722),
        ("M4", 570.92224, 1627.603968, 23_908_682),
        ("M5", 1110.84544, 3328.997376, 11_173_962),
        ("M6", 8178.368512, 24299.077632, 25_557_032),
    ],
)
def test_work_and_weights_of_the_networks(name, forward, train, parameters):
    network = networks.NETWORKS[name]
    assert networks.flops(network, train=False) == pytest.approx(forward * 1e6)
    assert networks.flops(network, train=True) == pytest.approx(train * 1e6)
    assert sum(array.size for array in networks.weights(network)) == parameters


def test_work_of_a_convolution_by_hand():
    case = op_cases.BY_NAME["conv2d M1 15x15x32 3x3/1 -> 64"]
    assert case.flops(2) == 2 * 2 * 13 * 13 * 64 * 9 * 32
    assert case.bytes(2) == 0
    pool = op_cases.BY_NAME["max_pool2d 30x30x32 2x2/2"]
    assert pool.bytes(2) == 4 * 2 * (30 * 30 * 32 + 15 * 15 * 32)
    adam = op_cases.BY_NAME["adam 4,000,000 weights"]
    assert adam.bytes(32) == 4 * 7 * 4_000_000  # reads p, g, m and v, writes p, m and v
    shapes = {name: array.shape for name, array in case.arrays(2).items()}
    assert shapes == {"x": (2, 15, 15, 32), "w": (3, 3, 32, 64)}


def test_a_wrong_result_is_not_timed():
    with pytest.raises(contest.Failed, match="wrong result"):
        contest.agree("train", [2.3, 2.2], [2.3, 2.21])
    with pytest.raises(contest.Failed, match="wrong result"):
        contest.agree("infer", [np.ones((2, 3))], [np.full((2, 3), np.nan)])
    with pytest.raises(contest.Failed):  # the second result
        contest.agree("ops", [np.ones(3), np.ones(2)], [np.ones(3), np.array([1, np.nan])])
    with pytest.raises(contest.Failed):
        contest.agree("ops", [np.ones(3), np.ones(2)], [np.ones(3), np.array([1, 1.1])])
    contest.agree("train", [2.3, 2.2], [2.3001, 2.2001])


def test_the_best_setting_of_the_best_peer_counts_and_losing_is_said():
    entries = [
        contest.Entry("convlet", "default", [2.0, 2.0, 2.1]),
        contest.Entry("torch", "slow", [9.0]),
        contest.Entry("torch", "fast", [1.5, 1.5]),
        contest.Entry("jax", "jit", error="out of memory"),
    ]
    assert report.best_peer(entries).setting == "fast"
    assert report.ratio(entries) == pytest.approx(0.75)
    case = {"title": "a case", "flops": 2e6, "bytes": 4e6}
    lines = report.rows(case, entries, {"fma_gflops": 10.0, "memory_gb_s": 4.0})
    assert lines[-1].strip() == "BEHIND the best peer (torch fast): 0.75x"
    assert "failed: out of memory" in lines[-2]
    ours = next(line for line in lines if "convlet" in line)
    assert "1.0 GFLOP/s  10%" in ours
    assert "2.0 GB/s  50%" in ours


def test_late_runs_have_a_ratio_of_their_own():
    """Of all peers the one with the smallest p99 counts; a few runs have none."""
    entries = [
        contest.Entry("convlet", "default", [1.0] * 95 + [4.0] * 5),
        contest.Entry("torch", "default", [2.0] * 95 + [9.0] * 5),
        contest.Entry("jax", "jit", [3.0] * 100),
        contest.Entry("ncnn", "default", [0.5]),
    ]
    assert report.p99_ratio(entries) == pytest.approx(0.75)
    lines = report.rows({"title": "a case"}, entries[:3], {})
    assert lines[-1].strip() == "ahead of the best peer (torch): 2.00x; by p99 0.75x the best one's"
    assert report.p99_ratio(entries[:1] + entries[3:]) is None


def test_settings_by_device_and_precision():
    settings = ["default", "fast bfloat16 keep", "cuda graph", "cuda graph tf32"]

    def fitting(device, precision):
        return [s for s in settings if peers.fits(s, device, precision)]

    assert fitting("cpu", "float32") == ["default"]
    assert fitting("cpu", "bfloat16") == ["default", "fast bfloat16 keep"]
    assert fitting("cuda", "tf32") == ["cuda graph", "cuda graph tf32"]
    assert fitting("cuda", "float32") == ["cuda graph"]


def test_ceilings_of_a_gpu_are_by_precision():
    entries = [
        contest.Entry("convlet", "cuda tf32", [0.01]),
        contest.Entry("torch", "cuda channels_last tf32", [0.02]),
    ]
    where = {"gflops": {"float32": 5e4, "tf32": 4e5}, "memory_gb_s": 3000.0}
    lines = report.rows({"title": "a case", "flops": 2e9}, entries, where)
    assert "200.0 TFLOP/s  50%" in lines[1]
    assert "100.0 TFLOP/s  25%" in lines[2]


def test_precisions_are_of_products_alone():
    assert bench_main.fits_case({"has_precision": True}, "cuda tf32")
    assert not bench_main.fits_case({"has_precision": False}, "cuda tf32")
    assert bench_main.fits_case({"has_precision": False}, "cuda")


def test_batches_on_a_gpu():
    cases = list(
        bench_main.cases(bench_main.parse(["train", "--device", "cuda", "--models", "M6"]))
    )
    assert [c["batch"] for c in cases] == [128, 1024]


def test_times_between_two_waits():
    """Replays that take a millisecond: some of them make one time."""
    done = []
    times = peers.batched_times(lambda: time.sleep(1e-3), lambda: done.append(1), 0.02, 3)
    assert len(times) >= 3
    assert len(done) == len(times) + 2
    assert all(0.9 < t * peers.CALLS_OF_GRAPH < 30 for t in times)


def test_every_op_is_there_for_every_case():
    """In the arrays' places of the bench, at a size that takes no time."""
    for case in op_cases.CASES:
        if case.multiply_adds < 1e8 and "4,000,000" not in case.name:
            run = convlet_ops.op("default", case, case.arrays(1))
            assert all(np.isfinite(array).all() for array in peers.results_of(run, run())), (
                case.name
            )


@pytest.mark.parametrize(
    "op",
    ["softmax", "softmax_cross_entropy", "dropout", "upsample2d", "attention", "lstm", "gelu"]
    + ["dense", "batch_norm", "layer_norm", "group_norm"],
)
def test_ops_agree_with_the_reference(op):
    """As bench compares them before it times them, each with its gradient: all results."""
    for case in (c for c in op_cases.CASES if c.op in (op, f"{op}_backward")):
        shown = []
        for run in (
            torch64_ops.op("default", case, case.arrays(2)),
            convlet_ops.op("default", case, case.arrays(2)),
        ):
            shown.append(peers.results_of(run, run()))
        contest.agree("ops", *shown)


def test_bfloat16_may_be_further_off():
    contest.agree("train", [2.3], [2.33], "bfloat16")
    with pytest.raises(contest.Failed):
        contest.agree("train", [2.3], [2.6], "bfloat16")


def test_batches_of_the_large_networks():
    cases = list(bench_main.cases(bench_main.parse(["train"])))
    assert [(c["case"], c["batch"]) for c in cases if c["case"] in ("M1", "M4", "M6")] == [
        ("M1", 32),
        ("M1", 128),
        ("M4", 32),
        ("M6", 8),
    ]


def test_ops_of_some_networks():
    def chosen(*arguments):
        return [case["case"] for case in bench_main.cases(bench_main.parse(["ops", *arguments]))]

    assert len(chosen()) == len(op_cases.CASES)
    assert chosen("--models", "M3", "--cases", "conv2d ", "dense") == [
        "conv2d M1 32x32x3 3x3/1 -> 32",  # M1's and M3's
        "conv2d M1 15x15x32 3x3/1 -> 64",
        "dense M3 2304 -> 128",
        "dense_backward M3 2304 -> 128",
    ]
    # A stem, three sizes of blocks, their first layers and shortcuts, of three passes each.
    assert len(chosen("--models", "M5")) == 3 * 11 - 1
    assert set(chosen("--models", *networks.NETWORKS)) < set(chosen())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--peers", "caffe"], "expected some of torch, keras"),
        (["train", "--models", "M9"], "expected some of M1, M2, M3, M4, M5, M6, got M9"),
        (["train", "--cases", "conv2d"], "--cases is for ops"),
        (["infer", "--images", "64"], "--images is for epoch"),
        (["infer", "--winograd"], "--winograd is for train on the cpu"),
        (["train", "--precision", "tf32"], "tf32 is for --device cuda"),
        (["epoch", "--models", "M2"], "epoch trains M1"),
        (["epoch", "--device", "cuda"], "epoch runs on the cpu in float32"),
        (["ops", "--precision", "bfloat16"], "ops runs in float32 on the cpu"),
        (["ops", "--cases", "conv2d", "conv3d"], "got conv3d"),
        (["ops", "--cases", "adam", "--models", "M1"], "no op is of both"),
        (["train", "--json", "no/such/record.json"], "record.json: there is no such folder"),
        (["train", "--png", "no/such/chart.png"], "chart.png: there is no such folder"),
    ],
)
def test_wrong_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        bench_main.parse(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_chart_without_matplotlib(monkeypatch, capsys):
    monkeypatch.setattr(bench_main.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        bench_main.parse(["train", "--png", "chart.png"])
    assert "--png needs matplotlib" in capsys.readouterr().err


def test_a_chart_of_no_record(tmp_path, capsys):
    (tmp_path / "broken.json").write_text("{")
    for name in ("missing.json", "broken.json"):
        with pytest.raises(SystemExit) as stopped:
            bench_main.chart([str(tmp_path / name), "--png", str(tmp_path / "chart.png")])
        assert stopped.value.code == 2
        assert "expected records" in capsys.readouterr().err


def bench(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (("train", "--models", "M2", "--batches", "2"), "nchw keep"),
        (("infer", "--models", "M2", "--batches", "1"), "channels_last keep"),
        (("ops", "--cases", "conv2d M2 5x5", "softmax_cross_entropy 10 "), "channels_last keep"),
    ],
)
def test_from_the_command_line(arguments, setting, tmp_path):
    record, chart = tmp_path / "record.json", tmp_path / "chart.png"
    ran = bench(
        *arguments,
        *("--peers", f"torch:{setting}", "--rounds", "1", "--seconds", "0"),
        *("--json", str(record), "--png", str(chart)),
    )
    assert ran.returncode == 0, ran.stderr
    assert "the best peer (torch" in ran.stdout
    content = json.loads(record.read_text())
    for case in content["cases"]:
        entries = {(e["peer"], e["setting"]): e for e in case["entries"]}
        assert not entries["convlet", "default"]["error"]
        assert entries["convlet", "default"]["median_ms"] > 0
        assert math.isfinite(case["ratio"])
    with Image.open(chart) as image:
        assert image.size[0] > 500


def bench_without(folder, module, *arguments):
    """What is printed where `module`, a peer, is not installed."""
    (folder / f"{module}.py").write_text("raise ModuleNotFoundError('as if it were not there')\n")
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    ran = bench(*arguments, "--peers", module, PYTHONPATH=path)
    assert ran.returncode == 0, ran.stderr
    assert f"missing: {module} (ModuleNotFoundError: as if it were not there)" in ran.stdout
    return ran.stdout


ONE_IMAGE = ("infer", "--models", "M2", "--batches", "1", "--seconds", "0")


def test_a_peer_that_is_not_installed_is_named(tmp_path):
    bench_without(tmp_path, "ncnn", *ONE_IMAGE)
    printed = bench_without(tmp_path, "keras", "epoch", "--images", "64", "--rounds", "1")
    assert "process start to the end of one epoch over 64 images" in printed


def test_without_the_reference(tmp_path):
    printed = bench_without(tmp_path, "torch", *ONE_IMAGE)
    assert "missing: torch in float64, the reference; results are checked against" in printed
    assert "convlet  " in printed


def test_a_peer_that_cannot_do_the_kind_is_named():
    ran = bench("train", "--models", "M2", "--batches", "2", "--peers", "ncnn", "--seconds", "0")
    assert ran.returncode == 0, ran.stderr
    assert "missing: ncnn (" in ran.stdout
