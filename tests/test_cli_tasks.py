"""Several tasks and several labels per image on the command line."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

import convlet
from convlet import cli, load_model
from convlet.cli.measure import label_lines
from convlet.data import open_source
from convlet.data.labels import open_labels

COLOURS = {"red": (230, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}
SHAPES = ("bar", "square")
FAST = ["--model", "mnist_cnn", "--lr", 0.003, "--batch-size", 16, "--augment", "none"]


def picture(colour, shape, rng):
    """12x12: a filled square, or a bar of the same area, in a colour on a dark ground."""
    image = rng.integers(0, 40, (12, 12, 3), dtype=np.uint8)
    height, width = (4, 4) if shape == "square" else (2, 8)
    top, left = rng.integers(0, 12 - height), rng.integers(0, 12 - width)
    image[top : top + height, left : left + width] = COLOURS[colour]
    return image


def write_pictures(folder, count=180):
    """Files 0.png, ...; the (colour, shape) of each."""
    rng = np.random.default_rng(0)
    kinds = []
    for i in range(count):
        kind = list(COLOURS)[i % 3], SHAPES[i // 3 % 2]
        Image.fromarray(picture(*kind, rng)).save(folder / f"{i}.png")
        kinds.append(kind)
    return kinds


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    kinds = write_pictures(folder)
    tasks = [["path", "colour", "shape"]]
    listed, marked = [["path", "labels"]], [["path", "red", "square", "bright"]]
    for i, (colour, shape) in enumerate(kinds):
        red, square = colour == "red", shape == "square"
        tasks.append([f"{i}.png", colour, "" if i % 4 == 1 else shape])
        names = ["red"] * red + ["square"] * square + ["bright"] * (colour != "blue")
        listed.append([f"{i}.png", "; ".join(names)])
        cells = [int(red), int(square), int(colour != "blue")]
        marked.append([f"{i}.png", *("" if (i + k) % 5 == 0 else v for k, v in enumerate(cells))])
    write_csv(folder / "tasks.csv", tasks)
    write_csv(folder / "listed.csv", listed)
    write_csv(folder / "marked.csv", marked)
    return folder


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs one command in tmp_path and gives what it prints; `error` is what it complains of."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments, error=None):
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        if error is None:
            assert (code, err) == (0, "")
            return out
        assert code == 2 and len(err.splitlines()) == 1, err
        assert re.search(error, err), err
        return None

    return command


def figures(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def shares(output, pattern):
    return float(re.search(rf"^held-out {pattern} (\d+\.\d+) %", output, re.M)[1])


# Several tasks


def test_a_head_for_each_column(pictures, run, tmp_path):
    data = pictures / "tasks.csv"
    output = run("train", data, *FAST, "--epochs", 20, "--out", "run")
    assert "colour: 3 classes: blue, green, red\n" in output
    assert "shape: 2 classes: bar, square (45 images without)" in output
    assert shares(output, "colour accuracy") >= 90
    assert shares(output, "shape accuracy") >= 80
    labelled = re.search(r"held-out shape accuracy .* \((\d+) of (\d+) images, (\d+) not", output)
    assert int(labelled[2]) + int(labelled[3]) == 36 and int(labelled[3]) > 0

    folder = tmp_path / "run"
    config = json.loads((folder / "config.json").read_text())
    assert config["objective"] == "multi_task"
    assert config["class_names"] == {"colour": ["blue", "green", "red"], "shape": ["bar", "square"]}
    rows = figures(folder)
    heads = ["colour_loss", "shape_loss", "colour_accuracy", "shape_accuracy"]
    validated = [f"val_{key}" for key in ("loss", *heads)]
    assert list(rows[0]) == ["epoch", "loss", *heads, *validated, "learning_rate"]
    losses = [float(row["val_loss"]) for row in rows]
    assert f"weights of epoch {1 + int(np.argmin(losses))} of 20" in output
    for row in rows:
        total = float(row["val_colour_loss"]) + float(row["val_shape_loss"])
        assert float(row["val_loss"]) == pytest.approx(total, rel=1e-5)
    assert output.count("shape_accuracy") >= 20  # a line per epoch
    assert "held-out shape accuracy" in (folder / "summary.txt").read_text()

    measured = run("evaluate", "run", data)
    for task in ("colour accuracy", "shape accuracy"):
        assert shares(measured, task) == shares(output, task)
    said = run("predict", "run", pictures / "0.png", pictures / "4.png").splitlines()
    assert re.search(r"0\.png: colour red  \d+\.\d %, shape bar  \d+\.\d %$", said[0])
    assert re.search(r"4\.png: colour green  \d+\.\d %, shape square ", said[1])


def test_the_split_is_by_the_first_task_with_all_labels(pictures, run, tmp_path):
    rows = [["path", "shape", "colour"]]
    with (pictures / "tasks.csv").open() as file:
        rows += [[row["path"], row["shape"], row["colour"]] for row in csv.DictReader(file)]
    write_csv(pictures / "swapped.csv", rows)
    run("train", pictures / "swapped.csv", *FAST, "--epochs", 1, "--out", "run")
    with (tmp_path / "run" / "split.csv").open(newline="") as file:
        split = list(csv.DictReader(file))
    held = [row["label"] for row in split if row["part"] == "test"]
    assert [sum(colour in label for label in held) for colour in COLOURS] == [12, 12, 12]
    assert split[1]["label"] == ";green" and split[0]["label"] == "bar;red"


@pytest.mark.parametrize("name", ["tasks", "listed"])
def test_resumed_is_as_if_uninterrupted(name, pictures, run, monkeypatch, tmp_path):
    flags = [*FAST, "--augment", "flip", "--epochs", 3]
    kind = ["--multi-label"] if name == "listed" else []
    data = pictures / f"{name}.csv"
    run("train", data, *flags, *kind, "--out", "whole")

    fit = convlet.Model.fit

    def one_epoch(model, *arguments, **options):
        fit(model, *arguments, **{**options, "epochs": 1})
        raise KeyboardInterrupt

    monkeypatch.setattr(convlet.Model, "fit", one_epoch)
    assert cli.main([str(a) for a in ("train", data, *flags, *kind, "--out", "two")]) == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert len(figures(tmp_path / "two")) == 1
    assert cli.main(["train", str(data), "--resume", "--out", "two"]) == 0
    for file in ("last.safetensors", "best.safetensors", "metrics.csv", "split.csv"):
        whole, two = (tmp_path / folder / file for folder in ("whole", "two"))
        assert whole.read_bytes() == two.read_bytes(), file


def test_what_is_missing_teaches_nothing(pictures, run, tmp_path):
    """A column that is known for nobody but a few leaves the other head as exact as ever."""
    with (pictures / "tasks.csv").open() as file:
        rows = [[r["path"], r["colour"], r["shape"]] for r in csv.DictReader(file)]
    for i, row in enumerate(rows):
        if i % 12 not in (0, 3):
            row[2] = ""
    write_csv(pictures / "sparse.csv", [["path", "colour", "shape"], *rows])
    output = run("train", pictures / "sparse.csv", *FAST, "--epochs", 6, "--out", "run")
    assert shares(output, "colour accuracy") >= 90
    assert re.search(r"held-out shape accuracy .*, \d\d not labelled\)", output)


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        (None, ["--model", "nin", "--image-size", 64], "--model nin: .*dense layer, got nin"),
        ([["path", "a", "b"], ["0.png", "x", "y"], ["1.png", "z", "y"]], [], "column b: .*found y"),
        ([["path", "a", "b"], ["0.png", "x", ""], ["1.png", "z", ""]], [], "column b: .*none"),
        ([["path", "a", "val_a"], ["0.png", "x", "y"]], [], "columns a, val_a: val_ before"),
    ],
)
def test_tasks_that_cannot_be_learned(rows, flags, message, pictures, run, tmp_path):
    data = pictures / "tasks.csv"
    if rows:
        data = pictures / "wrong.csv"
        write_csv(data, rows)
    run("train", data, *flags, error=message)
    assert not (tmp_path / "runs").exists()


# Several labels


def test_labels_as_names(pictures, run, tmp_path):
    data = pictures / "listed.csv"
    output = run("train", data, "--multi-label", *FAST, "--epochs", 20, "--out", "run")
    assert "3 labels: bright, red, square\n" in output
    assert "1.50 labels per image; 30 images have none" in output
    assert shares(output, "F1: macro") >= 85
    assert shares(output, "images with every label right:") >= 70
    folder = tmp_path / "run"
    assert json.loads((folder / "config.json").read_text())["objective"] == "multi_label"
    assert list(figures(folder)[0])[1:3] == ["loss", "accuracy"]

    model = load_model(folder / "best.safetensors")
    assert model.class_names == ["bright", "red", "square"]
    source = open_labels(data)
    with (folder / "split.csv").open(newline="") as file:
        chosen = [row["part"] == "val" for row in csv.DictReader(file)]
    source, x, _ = source.load(model.preprocessing)
    truth = np.stack([task.labels for task in source.tasks], axis=1)
    expected = convlet.metrics.choose_thresholds(truth[chosen], model.predict(x[chosen], verbose=0))
    assert model.thresholds == pytest.approx(expected)

    measured = run("evaluate", "run", data).splitlines()
    assert measured[0] == "listed: 180 images; 144 that the run learned from are left out"
    assert "\n".join(measured[1:]) in output
    said = run("predict", "run", *(pictures / f"{i}.png" for i in (0, 5, 2))).splitlines()
    assert re.search(r"0\.png: .*\bred \d+\.\d %", said[0])
    assert re.search(r"5\.png: square \d+\.\d %$", said[1])
    assert re.search(r"2\.png: none  \[likeliest: \w+ \d+\.\d %\]", said[2])


def test_labels_as_columns(pictures, run, tmp_path):
    data = pictures / "marked.csv"
    output = run("train", data, "--multi-label", *FAST, "--epochs", 12, "--out", "run")
    assert "3 labels: red, square, bright\n" in output
    assert "108 of 540 answers are not known" in output
    assert shares(output, "F1: macro") >= 75
    assert re.search(r"every label right: .* of \d+ whose labels are all known", output)
    with (tmp_path / "run" / "split.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["label"] == "?red;bright"

    write_csv(pictures / "less.csv", [["path", "bright", "red"], ["0.png", 1, 0], ["1.png", 1, ""]])
    model = load_model(tmp_path / "run" / "best.safetensors")
    source = open_labels(pictures / "less.csv", model.class_names)
    assert [task.labels.tolist() for task in source.tasks] == [[0, -1], [-1, -1], [1, 1]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["path", "a", "b"], ["0.png", 1, "yes"]], "line 2: column b: expected 0, 1 or nothing"),
        ([["path", "a", "b"], ["0.png", "", ""]], "line 2: no label of 0.png is known"),
        ([["path", "a", "a"], ["0.png", 1, 0]], "different names"),
        ([["0.png", 1, 0]], "expected a first line path,label,label"),
        ([["path", "a"], ["0.png", 1], ["1.png", 0]], "names of labels, .* found only 0, 1"),
        ([["path", "labels"], ["0.png", ""]], "found none"),
        ([["path", "labels"], ["0.png", "a"]], "at least two labels, found a"),
        ([["path", "labels"], ["0.png", "a", "b"]], "line 2: expected 2 cells"),
        ([["path", "labels"], ["none.png", "a"]], "none.png: no such file"),
        ([["path", "labels"], ["0.png", "a;b"], ["1.png", "a"]], "0 do not; each label needs"),
    ],
)
def test_cells_that_do_not_fit(rows, message, pictures, run):
    write_csv(pictures / "wrong.csv", rows)
    run("train", pictures / "wrong.csv", "--multi-label", error=message)


def test_what_was_begun_goes_on_as_it_was(pictures, run):
    run("train", pictures / "tasks.csv", *FAST, "--epochs", 1, "--out", "run")
    resumed = ["--resume", "--out", "run"]
    message = "multi-label, but run was begun as multi-task"
    run("train", pictures / "listed.csv", "--multi-label", *resumed, error=message)
    run("train", "digits", *resumed, error="single-label, but run was begun as multi-task")
    run(
        "train",
        "digits",
        "--multi-label",
        error="digits: expected a .csv of images and their labels; there is no such",
    )
    for flags in (["--folds", 3], ["--balance", "weight"]):
        message = f"{' '.join(map(str, flags))}: takes one label per image; tasks is multi-task"
        run("train", pictures / "tasks.csv", *flags, error=message)
    run("predict", "run", "digits", error="expected the label columns colour, shape, found label")
    run(
        "evaluate", "run", pictures / "marked.csv", error="expected the label columns colour, shape"
    )


def test_one_label_takes_one_column(pictures, run):
    rows = [[f"{i}.png", "ab"[i % 2]] for i in range(20)]
    write_csv(pictures / "one.csv", [["path", "kind"], *rows])
    output = run("train", pictures / "one.csv", *FAST, "--epochs", 1, "--out", "run")
    assert "2 classes: a, b\n" in output
    run("evaluate", "run", pictures / "tasks.csv", error="expected the label columns label")


def test_scores_of_labels():
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, np.nan, 0], [0, 1, 0]], np.float32)
    p = np.array([[0.9, 0.4, 0], [0.2, 0.8, 0], [0.6, 0.9, 0], [0.1, 0.3, 0]], np.float32)
    lines = label_lines("held-out", truth, p, np.float32([0.5, 0.5, 0.5]), ["a", "b", "c"])
    assert lines[0] == "held-out F1: macro 58.3 % (over 2 of 3 labels), micro 57.1 % (4 images)"
    assert lines[1] == (
        "held-out images with every label right: 33.33 % (1 of 3 whose labels are all known)"
    )
    assert " ".join(lines[3].split()) == "a 50.0 % 50.0 % 50.0 % 0.500 2 of 4"
    assert " ".join(lines[4].split()) == "b 100.0 % 50.0 % 66.7 % 0.500 2 of 3"
    assert " ".join(lines[5].split()) == "c - - - 0.500 0 of 4"


def test_batches_of_several_targets():
    x, y = np.zeros((5, 4, 4, 1), np.uint8), {"a": np.arange(5), "b": -np.arange(5)}
    batches = list(convlet.data.Augmentation().flow(x, y, batch_size=2, seed=1))
    assert [len(targets["a"]) for _, targets in batches] == [2, 2, 1]
    assert all((targets["a"] == -targets["b"]).all() for _, targets in batches)
    assert sorted(np.concatenate([targets["a"] for _, targets in batches])) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="as many targets in y as images in x"):
        convlet.data.Augmentation().flow(x, {"a": np.arange(5), "b": np.arange(4)})


def test_a_source_of_labels_has_a_task_for_each(pictures):
    source = open_labels(pictures / "listed.csv")
    assert [task.name for task in source.tasks] == ["bright", "red", "square"]
    assert source.tasks[0].class_names == ["no", "yes"]
    assert source.tasks[1].labels.sum() == 60
    with pytest.raises(ValueError, match="unknown to it: square"):
        open_labels(pictures / "listed.csv", ["bright", "red"])
    with pytest.raises(ValueError, match="expected path,label"):
        open_source(pictures / "listed.csv")  # an empty cell
