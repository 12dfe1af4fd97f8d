"""Sources of samples: class folders, CSV files, .npz files, data sets by name."""

import numpy as np
import pytest
from PIL import Image

from convlet.data import Preprocessing, open_source
from pictures import pixels, write_images

GREY = Preprocessing((4, 6), "grayscale")
RGB = Preprocessing((4, 6), "rgb")


def test_a_folder_of_class_folders(tmp_path):
    write_images(tmp_path, {"10": 2, "9": 1, "cat": 3})
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / ".hidden.png").write_text("no image")
    (tmp_path / ".git").mkdir()
    source = open_source(tmp_path)
    assert source.class_names == ["9", "10", "cat"]
    assert source.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert source.ids[0] == "9/0.png"
    assert source.skipped == {"cat/.hidden.png": "hidden", "cat/notes.txt": "not an image file"}
    assert source.left_out()[0].startswith("2 files are skipped: ")
    assert set(source.parts) == {""}
    preprocessing = source.default_preprocessing()
    assert preprocessing == Preprocessing((5, 7), "rgb")
    readable, x, digests = source.load(preprocessing)
    assert readable is source
    assert x.shape == (6, 5, 7, 3)
    assert len(set(digests)) == 6
    np.testing.assert_array_equal(x[0], np.asarray(Image.open(tmp_path / "9" / "0.png")))


def test_a_folder_with_parts(tmp_path):
    for part, count in (("train", 2), ("validation", 1), ("test", 1)):
        write_images(tmp_path / part, {"a": count, "b": count})
    source = open_source(tmp_path)
    assert source.class_names == ["a", "b"]
    assert source.parts.tolist() == ["test"] * 2 + ["train"] * 4 + ["val"] * 2


def test_parts_must_have_the_same_classes(tmp_path):
    write_images(tmp_path / "train", {"a": 1, "b": 1})
    write_images(tmp_path / "val", {"a": 1})
    with pytest.raises(ValueError, match="val: lacks a folder for the class b"):
        open_source(tmp_path)


def test_classes_that_are_called_like_parts(tmp_path):
    write_images(tmp_path, {"train": 1, "car": 1})
    assert open_source(tmp_path).class_names == ["car", "train"]


def test_default_size_and_colour(tmp_path):
    write_images(tmp_path, {"a": 1}, size=(300, 200))
    assert open_source(tmp_path).default_preprocessing() == Preprocessing((128, 128), "rgb")
    assert open_source(tmp_path).default_preprocessing(32).size == (32, 32)
    Image.fromarray(pixels(8, 8)).save(tmp_path / "a" / "0.png")
    assert open_source(tmp_path).default_preprocessing() == Preprocessing((8, 8), "grayscale")
    Image.fromarray(pixels(9, 8, 3)).save(tmp_path / "a" / "1.png")
    assert open_source(tmp_path).default_preprocessing() == Preprocessing((128, 128), "rgb")


def test_a_broken_image_is_named(tmp_path):
    write_images(tmp_path, {"a": 1})
    path = tmp_path / "a" / "0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    source = open_source(tmp_path)
    with pytest.raises(ValueError, match=r"no image can be read: .*0\.png: "):
        source.load(source.default_preprocessing())
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no image can be read: .*0\.png: not an image"):
        source.default_preprocessing()


@pytest.mark.parametrize("header", ["", "path,label\n", "\ufeffImage,Class\n"])
def test_csv(tmp_path, header):
    write_images(tmp_path / "images", {"a": 2})
    text = f"{header}images/a/0.png, dog\n\nimages/a/1.png,cat\n"
    (tmp_path / "pets.csv").write_text(text, encoding="utf-8")
    source = open_source(tmp_path / "pets.csv")
    assert source.name == "pets"
    assert source.class_names == ["cat", "dog"]
    assert source.labels.tolist() == [1, 0]
    assert source.ids == ["images/a/0.png", "images/a/1.png"]
    assert source.load(RGB)[1].shape == (2, 4, 6, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,cat\n", r"line 1: .*a\.png: no such file"),
        ("x.png\n", "line 1: expected path,label, got 'x.png'"),
        ("x.png,cat\nx.png,cat,dog\n", "line 2: expected path,label, got 'x.png,cat,dog'"),
        ("x.png,a,b\nx.png,,\n", "line 2: expected 3 cells path,label,label"),
        ("x.png,a,b\nx.png,a\n", "line 2: expected 3 cells path,label,label"),
        ("path,a,a\nx.png,1,2\n", "expected different names of the label columns"),
        ("x.png,cat\nx.png, \n", "line 2: expected path,label"),
        ("path,label\n", "holds no images"),
        ("", "holds no images"),
    ],
)
def test_wrong_csv_lines_are_named(tmp_path, text, message):
    Image.fromarray(pixels(4, 6)).save(tmp_path / "x.png")
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_source(tmp_path / "d.csv")


def test_npz(tmp_path):
    x, y = pixels(5, 4, 6), np.array([7, 3, 10, 3, 7])
    np.savez(tmp_path / "d.npz", x=x, y=y[:, None])
    source = open_source(tmp_path / "d.npz")
    assert source.class_names == ["3", "7", "10"]
    assert source.labels.tolist() == [1, 0, 2, 0, 1]
    assert source.default_preprocessing() == GREY
    np.testing.assert_array_equal(source.load(GREY)[1][..., 0], x)
    np.savez(tmp_path / "n.npz", x=x, y=y % 3, class_names=["c", "b", "a"])
    named = open_source(tmp_path / "n.npz")
    assert named.class_names == ["c", "b", "a"]
    assert named.labels.tolist() == (y % 3).tolist()
    np.savez(tmp_path / "p.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    assert open_source(tmp_path / "p.npz").parts.tolist() == ["train"] * 5 + ["test"] * 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, "expected arrays x and y .* found a"),
        ({"x": pixels(2, 4, 6)}, "expected arrays x and y"),
        ({"x": pixels(2, 4, 6), "y": np.zeros(3, int)}, r"expected y \(2,\)"),
        ({"x": pixels(2, 4, 6), "y": np.zeros(2)}, r"expected y \(2,\) of integers"),
        ({"x": pixels(2, 4), "y": np.zeros(2, int)}, "expected images"),
        ({"x": pixels(2, 4, 6, 2), "y": np.zeros(2, int)}, "expected images"),
        ({"x": pixels(2, 4, 6) / 255, "y": np.zeros(2, int)}, "expected uint8 pixels"),
        (
            {"x": pixels(2, 4, 6), "y": np.array([0, 5]), "class_names": ["a", "b"]},
            "label 5 of image 1 is not one of the 2 class_names",
        ),
        ({"x": np.array([object()]), "y": np.zeros(1, int)}, "cannot be read as an .npz"),
        ({"x": pixels(0, 4, 6), "y": np.zeros(0, int)}, "holds no images"),
    ],
)
def test_wrong_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "d.npz")


def test_broken_npz(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=pixels(2, 4, 6), y=np.zeros(2, int))
    whole = path.read_bytes()
    for broken in (b"", whole[:100], whole[:-30]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"d\.npz: cannot be read as an \.npz"):
            open_source(path)


def test_what_is_no_source_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder, .* data set \(digits"):
        open_source("nowhere")
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(ValueError, match=r"expected a folder, a \.csv or an \.npz"):
        open_source(tmp_path / "x.txt")
    with pytest.raises(ValueError, match="expected one folder of images per class"):
        open_source(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        open_source(tmp_path)


def test_classes_are_matched_by_name(tmp_path):
    np.savez(tmp_path / "d.npz", x=pixels(2, 4, 6), y=np.array([0, 1]), class_names=["b", "a"])
    source = open_source(tmp_path / "d.npz").aligned_to(["a", "b", "c"])
    assert source.labels.tolist() == [1, 0]
    assert source.class_names == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"model's 2 classes \(a, z\); unknown to it: b"):
        open_source(tmp_path / "d.npz").aligned_to(["a", "z"])
    write_images(tmp_path / "f", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="missing here: c"):
        open_source(tmp_path / "f").aligned_to(["a", "b", "c"])


def test_too_large_for_the_memory(tmp_path, monkeypatch):
    write_images(tmp_path, {"a": 1})
    monkeypatch.setattr("convlet.data.source._available_memory", lambda: 10**6)
    with pytest.raises(ValueError, match=r"need 1\.2 GB of memory, 0\.0 GB are free"):
        open_source(tmp_path).load(Preprocessing((20000, 20000)))


def test_csv_with_several_label_columns(tmp_path):
    for name in ("1.png", "2.png", "3.png"):
        Image.fromarray(pixels(4, 6)).save(tmp_path / name)
    path = tmp_path / "d.csv"
    path.write_text("file,kind,colour\n1.png,cat,\n2.png,dog,red\n3.png,,blue\n")
    source = open_source(path)
    assert [task.name for task in source.tasks] == ["kind", "colour"]
    assert [task.class_names for task in source.tasks] == [["cat", "dog"], ["blue", "red"]]
    assert [task.labels.tolist() for task in source.tasks] == [[0, 1, -1], [-1, 1, 0]]
    assert [t.labels.tolist() for t in source.subset(np.array([2, 0])).tasks] == [[-1, 0], [0, -1]]
    assert source.aligned_to(["dog", "cat"]).labels.tolist() == [1, 0, -1]
    path.write_text("1.png,cat,x\n2.png,dog,\n")
    assert [task.name for task in open_source(path).tasks] == ["label1", "label2"]


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b'x.png,"cat\n' + b"x" * 200_000])
def test_a_csv_that_is_no_text_is_named(tmp_path, data):
    (tmp_path / "d.csv").write_bytes(data)
    with pytest.raises((ValueError, FileNotFoundError), match=r"d\.csv"):
        open_source(tmp_path / "d.csv")
