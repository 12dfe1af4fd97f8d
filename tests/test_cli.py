"""The command line, as a user meets it: in a process of its own."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from convlet import _core, applications
from convlet.cli import parser
from convlet.datasets import digits

COMMAND = [sys.executable, "-m", "convlet"]
QUICK = ["--epochs", "2", "--model", "mnist_cnn"]


def convlet(*arguments, cwd, env=None):
    """Run one command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def succeeded(result):
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def mistaken(result, message):
    """Exit code 2 and one clear line on stderr."""
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert re.match(r"convlet[ a-z]*: error: ", result.stderr)
    assert re.search(message, result.stderr), result.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The output of `convlet train digits` and the folder it ran in."""
    folder = tmp_path_factory.mktemp("trained")
    return succeeded(convlet("train", "digits", cwd=folder)), folder


def held_out(run):
    """{index into the digits: label} of the images that a run held out."""
    with (run / "split.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    return {int(re.fullmatch(r"digits\[(\d+)\]", r["sample"])[1]): r["label"] for r in rows}


def accuracy(output):
    return float(re.search(r"^held-out accuracy (\d+\.\d\d) %", output, re.MULTILINE)[1])


# train


def test_train_digits(trained):
    output, folder = trained
    assert accuracy(output) >= 98.5
    assert "10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in output
    assert "run folder: runs/digits-1" in output
    run = folder / "runs" / "digits-1"
    assert sorted(path.name for path in run.iterdir()) == [
        "augmentation.png",
        "best.safetensors",
        "config.json",
        "last.safetensors",
        "metrics.csv",
        "split.csv",
        "summary.txt",
    ]
    assert not {"\r", "\x1b"} & set(output)  # plain lines where there is no terminal
    assert re.search(r"^held-out accuracy.*$", output, re.M)[0] in (run / "summary.txt").read_text()


def test_the_split_is_stratified_and_recorded(trained):
    run = trained[1] / "runs" / "digits-1"
    with (run / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1797
    _, y = digits.load_all()
    assert [row["label"] for row in rows] == [str(label) for label in y]
    for digit in "0123456789":
        parts = [row["part"] for row in rows if row["label"] == digit]
        assert abs(parts.count("test") / len(parts) - 0.2) < 0.01
        assert abs(parts.count("val") / len(parts) - 0.08) < 0.01
    together = {row["digest"] for row in rows if row["part"] == "test"} & {
        row["digest"] for row in rows if row["part"] != "test"
    }
    assert not together


def test_metrics_and_config(trained):
    run = trained[1] / "runs" / "digits-1"
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    config = json.loads((run / "config.json").read_text())
    assert [int(row["epoch"]) for row in rows] == list(range(1, config["settings"]["epochs"] + 1))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert all(0 <= float(row["val_accuracy"]) <= 1 for row in rows)
    assert config["class_names"] == list("0123456789")
    assert config["preprocessing"]["size"] == [8, 8]


def test_the_next_run_gets_the_next_number(trained, tmp_path):
    (tmp_path / "runs" / "digits-1").mkdir(parents=True)
    output = succeeded(convlet("train", "digits", *QUICK, "--image-size", 20, cwd=tmp_path))
    assert "run folder: runs/digits-2" in output


def test_the_same_seed_gives_the_same_files(tmp_path):
    for out, threads in (("a", "1"), ("b", "2")):
        arguments = ["train", "digits", "--epochs", 1, "--seed", 3, "--out", out]
        succeeded(convlet(*arguments, cwd=tmp_path, env={"CONVLET_NUM_THREADS": threads}))
    for name in ("last.safetensors", "best.safetensors", "metrics.csv", "split.csv", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize("optimizer", parser.OPTIMIZERS)
def test_optimizers_and_no_validation(tmp_path, optimizer):
    arguments = ["--optimizer", optimizer, "--val-split", 0, "--batch-size", 50]
    output = succeeded(convlet("train", "digits", "--epochs", 2, *arguments, cwd=tmp_path))
    assert accuracy(output) > 50
    run = tmp_path / "runs" / "digits-1"
    assert "val_loss" in (run / "metrics.csv").read_text().splitlines()[0]
    assert "weights of epoch 2" in output


# The large networks take the same path, and minutes.
LIGHT = (
    "small_cnn",
    "cifar_cnn",
    "mnist_cnn",
    "cifar_small",
    "img224",
    "lenet",
    "nin",
    "gru_classifier",
)


@pytest.mark.parametrize("model", LIGHT)
def test_models(model, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", x=x, y=np.arange(20) % 2)
    output = succeeded(convlet("train", "noise.npz", "--model", model, "--epochs", 1, cwd=tmp_path))
    assert f"{model}: " in output
    built = getattr(applications, model)((24, 24, 3), 2)
    assert f"{built.count_params():,} parameters" in output


def test_a_recipe_stands_for_flags_and_gives_way_to_them(tmp_path):
    convlet(
        "train", "digits", "--recipe", "small-images", "--epochs", 5, "--out", "a", cwd=tmp_path
    )
    config = json.loads((tmp_path / "a" / "config.json").read_text())["settings"]
    assert {
        name: config[name] for name in ("epochs", "optimizer", "lr", "warmup", "val_split")
    } == {
        "epochs": 5,
        "optimizer": "adamw",
        "lr": 0.004,
        "warmup": 4,
        "val_split": 0.0,
    }
    spelled_out = "--optimizer adamw --lr 0.004 --warmup 4 --label-smoothing 0.1 --val-split 0"
    arguments = ["--epochs", 5, "--out", "b", *spelled_out.split()]
    succeeded(convlet("train", "digits", *arguments, cwd=tmp_path))
    for name in ("last.safetensors", "metrics.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with (tmp_path / "a" / "metrics.csv").open(newline="") as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.001, 0.002, 0.003, 0.004, 0], abs=5e-5)
    message = "--warmup 40: expected less than the 40 epochs"
    mistaken(convlet("train", "digits", "--warmup", 40, cwd=tmp_path), message)


def test_the_recipe_for_small_images(tmp_path):
    output = succeeded(convlet("train", "digits", "--recipe", "small-images", cwd=tmp_path))
    assert accuracy(output) >= 99.0  # of this split; 99.7 on average


def test_small_images_are_enlarged_to_what_the_network_takes(tmp_path):
    output = succeeded(convlet("train", "digits", "--model", "lenet", "--epochs", 1, cwd=tmp_path))
    assert output.startswith(
        "lenet takes images of at least 12x12: these are enlarged to 12x12\n"
        "digits: 1797 images as 12x12x1\n"
    )
    arguments = ["train", "digits", "--model", "vgg11", "--image-size", 31]
    message = "--image-size 31: vgg11 takes images of at least 32x32"
    mistaken(convlet(*arguments, cwd=tmp_path), message)


def write_digits(folder, indices, suffix="png"):
    """Image files of digits, in folders named after their class."""
    x, y = digits.load_all()
    for i in indices:
        path = folder / str(y[i]) / f"{i}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.to_pixels(x[i, :, :, 0])).save(path, quality=95)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "digits-as-files"
    write_digits(folder, range(300))
    return folder


def test_a_folder_of_images(pictures, tmp_path):
    output = succeeded(convlet("train", pictures, "--epochs", 3, cwd=tmp_path))
    assert "300 images as 8x8x1" in output
    assert "60 held out" in output
    measured = succeeded(convlet("evaluate", "runs/digits-as-files-1", pictures, cwd=tmp_path))
    assert accuracy(measured) == accuracy(output)
    # Wherever the training images turn up, they are known and not counted.
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    measured = succeeded(convlet("evaluate", "runs/digits-as-files-1", copy, cwd=tmp_path))
    assert accuracy(measured) == accuracy(output)


def test_a_folder_with_val_and_without_test_says_so(pictures, tmp_path):
    for part, indices in (("train", range(150)), ("val", range(150, 200))):
        write_digits(tmp_path / "data" / part, indices)
    output = succeeded(convlet("train", "data", "--epochs", 2, cwd=tmp_path))
    line = re.search(r"^validation accuracy .* \(\d+ of 50 images\).*$", output, re.M)[0]
    assert "they chose the epoch" in line
    measured = succeeded(convlet("evaluate", "runs/data-1", "data", cwd=tmp_path))
    assert line.split(")")[0] in measured


def test_held_out_copies_of_training_images_are_left_out(tmp_path):
    for part, indices in (("train", range(100)), ("test", range(90, 130))):
        write_digits(tmp_path / "data" / part, indices)
    output = succeeded(convlet("train", "data", "--epochs", 1, cwd=tmp_path))
    assert "10 held-out images are left out" in output
    assert " of 30 images)" in output


# resume and interruption


def start(*arguments, cwd):
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts a job in the background makes it ignore Ctrl-C; children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for_epochs(run, epochs, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        metrics = run / "metrics.csv"
        if metrics.is_file() and len(metrics.read_text().splitlines()) > epochs:
            return
        time.sleep(0.005)
    raise AssertionError(f"{run} never reached epoch {epochs}")


LONG = ["train", "digits", "--epochs", "6"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    succeeded(convlet(*LONG, "--out", "run", cwd=folder))
    return folder / "run"


def same_files(a, b):
    for name in ("last.safetensors", "best.safetensors", "metrics.csv", "split.csv", "summary.txt"):
        expected, got = (a / name).read_bytes(), (b / name).read_bytes()
        if name == "summary.txt":
            expected, got = (text.split(b"run folder")[0] for text in (expected, got))
        assert expected == got, name


def test_ctrl_c_keeps_the_run_and_resume_continues_bit_for_bit(tmp_path, uninterrupted):
    run = tmp_path / "run"
    process = start(*LONG, "--out", "run", cwd=tmp_path)
    wait_for_epochs(run, 2, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = errors.splitlines()
    assert re.fullmatch(
        r"convlet: interrupted after epoch \d of 6; "
        r"go on with: convlet train digits --resume --out run",
        line.strip(),
    )
    assert not list(run.glob(".*"))
    assert accuracy(succeeded(convlet("evaluate", "run", "digits", cwd=tmp_path))) > 50
    output = succeeded(convlet("train", "digits", "--resume", "--out", "run", cwd=tmp_path))
    same_files(uninterrupted, run)
    assert "held-out accuracy" in output


def test_resume_after_a_crash_at_any_moment(tmp_path, uninterrupted):
    run = tmp_path / "run"
    process = start(*LONG, "--out", "run", cwd=tmp_path)
    wait_for_epochs(run, 3, process)
    process.kill()
    process.communicate(timeout=60)
    succeeded(convlet("train", "digits", "--resume", "--out", "run", cwd=tmp_path))
    same_files(uninterrupted, run)


def test_resume_before_the_first_epoch_and_after_the_last(tmp_path, uninterrupted):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "split.csv"):
        shutil.copy(uninterrupted / name, run)
    succeeded(convlet("train", "digits", "--resume", "--out", "run", cwd=tmp_path))
    same_files(uninterrupted, run)
    again = succeeded(convlet("train", "digits", "--resume", "--out", "run", cwd=tmp_path))
    same_files(uninterrupted, run)
    assert "Epoch" not in again


def test_resume_takes_the_latest_run(tmp_path, uninterrupted):
    for number in (2, 10):
        (tmp_path / "runs").mkdir(exist_ok=True)
        shutil.copytree(uninterrupted, tmp_path / "runs" / f"digits-{number}")
    (tmp_path / "runs" / "digits-11").mkdir()
    output = succeeded(convlet("train", "digits", "--resume", cwd=tmp_path))
    assert "run folder: runs/digits-10" in output


def test_resume_refuses_what_would_change_the_run(tmp_path, uninterrupted, pictures):
    mistaken(convlet("train", "digits", "--resume", cwd=tmp_path), "no run to resume")
    mistaken(convlet("train", "digits", "--resume", "--out", "x", cwd=tmp_path), "no run to resume")
    shutil.copytree(uninterrupted, tmp_path / "run")
    for flag, value in (("--seed", 5), ("--batch-size", 7), ("--epochs", 9)):
        mistaken(
            convlet("train", "digits", "--resume", "--out", "run", flag, value, cwd=tmp_path),
            f"{flag} {value}: run was begun with",
        )
    mistaken(
        convlet("train", pictures, "--resume", "--out", "run", cwd=tmp_path), "has changed since"
    )


# evaluate and predict


def test_evaluate_reproduces_the_printed_accuracy(trained):
    output, folder = trained
    measured = succeeded(convlet("evaluate", "runs/digits-1", "digits", cwd=folder))
    line = re.search(r"^held-out accuracy .*$", output, re.MULTILINE)[0]
    assert line in measured
    assert "left out" in measured
    elsewhere = convlet("evaluate", folder / "runs" / "digits-1", "digits", cwd=folder.parent)
    assert line in succeeded(elsewhere)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_predict_image_files(trained, tmp_path, suffix):
    _, folder = trained
    run = folder / "runs" / "digits-1"
    held = held_out(run)
    chosen = list(held)[:40]
    write_digits(tmp_path / "files", chosen, suffix)
    files = [tmp_path / "files" / held[i] / f"{i}.{suffix}" for i in chosen]
    lines = succeeded(convlet("predict", run, *files, cwd=tmp_path)).splitlines()
    assert len(lines) == len(chosen)
    right = 0
    for line, file, i in zip(lines, files, chosen, strict=True):
        found = re.fullmatch(rf"{re.escape(str(file))}: (\d)  ([\d.]+) %  \[(.*)\]", line)
        name, confidence, top = found.groups()
        five = [entry.split() for entry in top.split(", ")]
        assert len(five) == 5
        assert five[0][:2] == [name, confidence]
        shares = [float(share) for _, share, _ in five]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 100.3
        right += name == held[i]
    assert right >= 38
    # A folder is the same files in order of their names.
    together = succeeded(convlet("predict", run, tmp_path / "files", cwd=tmp_path)).splitlines()
    assert sorted(together) == sorted(lines)


def test_a_png_of_a_digit_is_the_same_to_the_model_as_the_digit(trained, tmp_path):
    run = trained[1] / "runs" / "digits-1"
    chosen = list(held_out(run))[:20]
    write_digits(tmp_path / "files", chosen)
    files = {p.stem: p for p in (tmp_path / "files").rglob("*.png")}
    from_files = succeeded(convlet("predict", run, *[files[str(i)] for i in chosen], cwd=tmp_path))
    from_set = succeeded(convlet("predict", run, "digits", cwd=tmp_path)).splitlines()
    assert len(from_set) == len(held_out(run))
    strip = re.compile(r"^.*?: |  \(labelled \d\)$")
    assert [strip.sub("", line) for line in from_files.splitlines()] == [
        strip.sub("", line) for line in from_set[:20]
    ]


def test_predict_from_a_model_file_and_other_sizes(trained, tmp_path):
    run = trained[1] / "runs" / "digits-1"
    i = next(iter(held_out(run)))
    x = digits.to_pixels(digits.load_all()[0][i, :, :, 0])
    large = np.kron(x, np.ones((16, 16), np.uint8))
    Image.fromarray(np.stack([large] * 3, axis=-1)).save(tmp_path / "large.png")
    line = succeeded(convlet("predict", run / "best.safetensors", "large.png", cwd=tmp_path))
    assert line.startswith(f"large.png: {held_out(run)[i]}  ")


# a user's mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "arguments are required: DATA"),
        (["train", "nowhere"], "nowhere: no such folder, .csv or .npz, nor a data set"),
        (["train", "mnist"], "mnist: not found in .* download"),
        (["train", "empty"], "empty: expected one folder of images per class"),
        (["train", "text.txt"], "expected a folder"),
        (["train", "broken"], r"cat/broken\.png: "),
        (["train", "one"], "one: expected at least two classes, found cat"),
        (["train", "few"], "few: .* dog has 1 "),
        (["train", "bad.npz"], "cannot be read as an .npz"),
        (["train", "digits", "--model", "resnet"], "invalid choice: 'resnet'"),
        (["train", "digits", "--epochs", "0"], "--epochs: expected a whole number"),
        (["train", "digits", "--epochs", "two"], "--epochs: expected a whole number"),
        (["train", "digits", "--batch-size", "-3"], "--batch-size: expected a whole number"),
        (["train", "digits", "--lr", "0"], "--lr: expected a number above 0"),
        (["train", "digits", "--lr", "nan"], "--lr: expected a number above 0"),
        (["train", "digits", "--val-split", "1"], "--val-split: expected a share"),
        (["train", "digits", "--optimizer", "lion"], "invalid choice: 'lion'"),
        (
            ["train", "digits", "--model", "cifar_cnn", "--image-size", "8"],
            "--image-size 8: cifar_cnn takes images of at least 18x18",
        ),
        (["train", "digits", "--image-size", "100000"], "size"),
        (["train", "digits", "--device", "cuda"], "--device cuda .*'cuda' cannot be used"),
        # Before the images are read.
        (["train", "broken", "--precision", "tf32"], "--precision tf32: .* NVIDIA GPU"),
        (["train", "digits", "--augment", "spin=3"], "--augment.*spin"),
        (["train", "digits", "--ep", "3"], "unrecognized arguments: --ep"),
        (["train", "digits", "--out", "text.txt"], "text.txt"),
        (["train", "digits", "--out", "broken"], "broken: is not empty"),
        (["evaluate", "nowhere", "digits"], "nowhere: no such run or model file"),
        (["evaluate", "empty", "digits"], "empty: is not a run folder"),
        (["predict", "text.txt", "x.png"], "text.txt: "),
        (["predict", "RUN"], "arguments are required: IMAGE"),
        (["predict", "RUN", "nothing.png"], "nothing.png: no such file"),
        (["predict", "RUN", "text.txt"], "text.txt: not an image"),
        (["predict", "RUN", "broken/cat/broken.png"], r"broken\.png: "),
        (["predict", "RUN", "empty"], "empty: holds no images"),
        (["evaluate", "RUN", "one"], "classes do not match .* unknown to it: cat"),
        (["doctor", "--now"], "unrecognized arguments: --now"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments, message, trained, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "bad.npz").write_text("hello")
    for name in ("broken/cat", "broken/dog", "one/cat", "few/cat", "few/dog"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "broken" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nhello")
    picture = Image.new("L", (9, 9))
    for name in ["one/cat/1.png", "few/dog/1.png"] + [f"few/cat/{i}.png" for i in range(9)]:
        picture.putpixel((0, 0), int(re.search(r"\d", name)[0]))
        picture.save(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    arguments = [str(trained[1] / "runs" / "digits-1") if a == "RUN" else a for a in arguments]
    mistaken(
        convlet(
            *arguments, cwd=tmp_path, env={"CONVLET_DATA": str(tmp_path), "CONVLET_OFFLINE": "1"}
        ),
        message,
    )
    assert sorted(tmp_path.rglob("*")) == before  # nothing is left behind


def test_a_rate_too_large_stops_with_one_line(tmp_path):
    result = convlet("train", "digits", "--optimizer", "sgd", "--lr", "1e30", cwd=tmp_path)
    mistaken(result, "loss")


def test_a_broken_run_folder(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained[1] / "runs" / "digits-1", run)
    whole = (run / "best.safetensors").read_bytes()
    (run / "best.safetensors").write_bytes(whole[:1000])
    mistaken(convlet("evaluate", "run", "digits", cwd=tmp_path), r"best\.safetensors")
    (run / "best.safetensors").write_bytes(whole)
    (run / "split.csv").write_text("a,b\n1,2\n")
    mistaken(convlet("evaluate", "run", "digits", cwd=tmp_path), r"split\.csv")
    (run / "config.json").write_text('{"format": 99}')
    mistaken(
        convlet("train", "digits", "--resume", "--out", "run", cwd=tmp_path), r"config\.json.*99"
    )
    (run / "best.safetensors").unlink()
    mistaken(convlet("evaluate", "run", "digits", cwd=tmp_path), "no epoch of it is finished")


def test_debug_shows_the_traceback(tmp_path):
    result = convlet("train", "nowhere", cwd=tmp_path, env={"CONVLET_DEBUG": "1"})
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_a_reader_that_goes_away_is_no_error(trained, tmp_path):
    run = trained[1] / "runs" / "digits-1"
    process = start("predict", run, "digits", cwd=tmp_path)
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 0
    assert errors == ""


# the rest


def test_doctor(tmp_path):
    output = succeeded(convlet("doctor", cwd=tmp_path, env={"CONVLET_NUM_THREADS": "1"}))
    for word in ("convlet ", "Python ", "numpy", "Pillow", "safetensors", "CPU", "CUDA"):
        assert re.search(rf"^{word}", output, re.MULTILINE), word
    assert re.search(r"^threads +1 \(CONVLET_NUM_THREADS=1; ", output, re.MULTILINE)
    for isa in _core.supported_isas():
        assert isa in output
    assert re.search(r"^self-check +conv2d is exact", output, re.MULTILINE)
    forced = succeeded(convlet("doctor", cwd=tmp_path, env={"CONVLET_ISA": "baseline"}))
    assert re.search(r"^instructions +baseline; ", forced, re.MULTILINE)


def test_help_is_quick_and_loads_nothing_heavy(tmp_path):
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        output = succeeded(convlet("--help", cwd=tmp_path))
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.3
    for command in ("train", "evaluate", "predict", "doctor"):
        assert re.search(rf"^ +{command} ", output, re.MULTILINE)
        assert f"convlet {command}" in succeeded(convlet(command, "--help", cwd=tmp_path))
    code = (
        "import sys; from convlet.cli.parser import parse; parse(['doctor']); "
        "print([m for m in sys.modules if m.split('.')[0] in ('PIL', 'safetensors', 'torch')])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_version(tmp_path):
    assert re.fullmatch(r"convlet \d+\.\d+\.\d+\n", succeeded(convlet("--version", cwd=tmp_path)))


def test_the_parser_knows_every_model():
    assert tuple(applications.MODELS) == parser.MODELS
