"""Data sets: the digits inside the package, and readers of the published files."""

import gzip
import importlib
import io
import pickle
import struct
import tarfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlet.data import open_source
from convlet.datasets import cifar10, cifar100, digits, fashion_mnist, mnist
from convlet.datasets.pickled import read_pickle


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setenv("CONVLET_OFFLINE", "1")


def test_digits_are_the_published_images():
    from zlib import crc32

    x, y = digits.load_all()
    assert x.shape == (1797, 8, 8, 1)
    assert x.dtype == np.uint8
    assert (x.min(), x.max()) == (0, 16)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # The first image of the published file, a zero.
    assert x[0, :2, :, 0].tolist() == [[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]]
    assert y[:10].tolist() == list(range(10))
    assert (crc32(x.tobytes()), crc32(y.tobytes())) == (4087501628, 4168075561)


def test_digits_ship_small_with_their_licence():
    folder = files("convlet.datasets")
    assert len(folder.joinpath("digits.npz").read_bytes()) < 60_000
    note = folder.joinpath("digits.md").read_text()
    for word in ("10.24432/C50P49", "Alpaydin", "Kaynak", "1998", "CC BY 4.0"):
        assert word in note


def test_digits_split_is_stratified_and_seeded():
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    assert x_train.shape[1:] == x_test.shape[1:] == (8, 8, 1)
    assert len(x_train) + len(x_test) == 1797
    for digit in range(10):
        share = (y_test == digit).sum() / ((y_test == digit).sum() + (y_train == digit).sum())
        assert abs(share - 0.2) < 0.01
    np.testing.assert_array_equal(digits.load_data()[1][0], x_test)
    assert not np.array_equal(digits.load_data(seed=1)[1][0], x_test)
    together = {image.tobytes() for image in x_train} | {image.tobytes() for image in x_test}
    assert len(together) == 1797
    assert len(digits.load_data(test_split=0)[1][0]) == 0
    with pytest.raises(ValueError, match="fraction"):
        digits.load_data(test_split=1.5)


def test_digits_as_pixels():
    values = np.arange(17, dtype=np.uint8)
    spread = digits.to_pixels(values)
    assert spread.dtype == np.uint8
    assert (spread[0], spread[8], spread[16]) == (0, 128, 255)
    source = open_source("digits")
    _, x, _ = source.load(source.default_preprocessing())
    np.testing.assert_array_equal(x, digits.to_pixels(digits.load_all()[0]))
    assert source.class_names == list("0123456789")


# MNIST and Fashion-MNIST


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return head + values.tobytes()


def write_mnist(folder: Path, packed: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", 7), ("t10k", 3)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, n, dtype=np.uint8)
    for name, values in arrays.items():
        data = idx(values)
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(data) if packed else data)
    return arrays


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("module", [mnist, fashion_mnist])
def test_mnist(tmp_path, module, packed):
    arrays = write_mnist(tmp_path, packed)
    (x_train, y_train), (x_test, y_test) = module.load_data(tmp_path)
    np.testing.assert_array_equal(x_train, arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(y_train, arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(x_test, arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(y_test, arrays["t10k-labels-idx1-ubyte"])


def test_files_are_found_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVLET_DATA", str(tmp_path))
    write_mnist(tmp_path / "mnist")
    source = open_source("mnist")
    assert source.parts.tolist() == ["train"] * 7 + ["test"] * 3
    assert source.default_preprocessing().input_shape == (28, 28, 1)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_missing_files_say_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVLET_DATA", str(tmp_path))
    module = importlib.import_module(f"convlet.datasets.{name}")
    with pytest.raises(
        FileNotFoundError,
        match=r"download .* from https://.* put it there \(.*failed: CONVLET_OFFLINE is set\)",
    ) as error:
        module.load_data()
    assert str(tmp_path / name) in str(error.value)
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        module.load_data(path=tmp_path / "elsewhere")


@pytest.mark.parametrize("cut", [0, 2, 10, 40, -1])
@pytest.mark.parametrize("packed", [True, False])
def test_truncated_mnist(tmp_path, cut, packed):
    write_mnist(tmp_path, packed)
    path = tmp_path / f"train-images-idx3-ubyte{'.gz' if packed else ''}"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="train-images"):
        mnist.load_data(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (idx(np.zeros((7, 28, 27), np.uint8)), "not an IDX file"),
        (idx(np.zeros(7, np.uint8)), "not an IDX file"),
        (idx(np.zeros((7, 28, 28), np.uint8)) + b"x", "longer than its header"),
        (idx(np.zeros((6, 28, 28), np.uint8)), "6 images but 7 labels"),
        (bytes([0, 0, 8, 3]) + np.array([2**32 - 1, 28, 28], ">u4").tobytes(), "claims 4294967295"),
    ],
)
def test_wrong_mnist(tmp_path, data, message):
    write_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(data))
    with pytest.raises(ValueError, match=message):
        mnist.load_data(tmp_path)


def test_wrong_mnist_label(tmp_path):
    write_mnist(tmp_path, packed=False)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([1, 10, 2], np.uint8)))
    with pytest.raises(ValueError, match=r"expected 0\.\.9, got 10"):
        mnist.load_data(tmp_path)


# CIFAR


def cifar_files(module, per_file: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {}
    for name in module.ARCHIVE.train + module.ARCHIVE.test:
        labels = [rng.integers(0, n, (per_file, 1)) for n in module.ARCHIVE.label_classes]
        pixels = rng.integers(0, 256, (per_file, 3072))
        found[name] = np.concatenate([*labels, pixels], axis=1).astype(np.uint8)
    return found


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("how", ["archive", "folder with the archive", "folder of files"])
@pytest.mark.parametrize("module", [cifar10, cifar100])
def test_cifar(tmp_path, module, how):
    records = cifar_files(module)
    archive = tmp_path / module.ARCHIVE.url.rsplit("/", 1)[1]
    if how == "folder of files":
        (tmp_path / "batches").mkdir()
        for name, data in records.items():
            (tmp_path / "batches" / name).write_bytes(data.tobytes())
    else:
        write_tar(archive, {name: data.tobytes() for name, data in records.items()})
    path = archive if how == "archive" else tmp_path
    (x_train, y_train), (x_test, y_test) = module.load_data(path=path)
    n = 3 * len(module.ARCHIVE.train)
    assert x_train.shape == (n, 32, 32, 3)
    assert y_train.shape == (n, 1)
    assert x_test.shape == (3, 32, 32, 3)
    assert y_test.shape == (3, 1)
    first, labels = records[module.ARCHIVE.test[0]], len(module.ARCHIVE.label_classes)
    np.testing.assert_array_equal(x_test[1, 2, 5], first[1, labels + 2 * 32 + 5 :: 1024])
    np.testing.assert_array_equal(y_test[:, 0], first[:, labels - 1])


def python2_pickle(content: dict) -> bytes:
    """As Python 2 wrote the published files: texts without encoding, numpy's old names."""

    def text(value: bytes) -> bytes:
        short = len(value) < 256
        head = b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))
        return head + value

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    def array(values: np.ndarray) -> bytes:
        shape = b"".join(number(n) for n in values.shape) + b"\x86"
        dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\x03" + text(b"|") + b"NNNJ"
        dtype += b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b")
        return empty + b"\x87R(K\1" + shape + dtype + b"\x89" + text(values.tobytes()) + b"tb"

    items = b""
    for key, value in content.items():
        items += text(key) + b"q\1"
        if isinstance(value, bytes):
            items += text(value)
        elif isinstance(value, list):
            items += b"](" + b"".join(number(v) for v in value) + b"e"
        else:
            items += array(value)
    return b"\x80\x02}q\0(" + items + b"u."


def pickled_files(module, write) -> dict[str, bytes]:
    files = {}
    for name, records in cifar_files(module).items():
        content = {b"batch_label": b"x" * 300}
        for i, key in enumerate(module.ARCHIVE.label_keys):
            content[key] = records[:, i].tolist()
        content[b"data"] = records[:, len(module.ARCHIVE.label_keys) :]
        files[name.removesuffix(".bin")] = write(content)
    return files


@pytest.mark.parametrize("how", ["archive", "folder with the archive", "folder of files"])
@pytest.mark.parametrize("write", [python2_pickle, lambda c: pickle.dumps(c, 2), pickle.dumps])
@pytest.mark.parametrize("module", [cifar10, cifar100])
def test_the_python_version_of_cifar(tmp_path, module, write, how):
    files = pickled_files(module, write)
    archive = tmp_path / module.ARCHIVE.url.rsplit("/", 1)[1].replace("binary", "python")
    if how == "folder of files":
        (tmp_path / "batches").mkdir()
        for name, data in files.items():
            (tmp_path / "batches" / name).write_bytes(data)
    else:
        write_tar(archive, files)
    found = module.load_data(path=archive if how == "archive" else tmp_path)
    other = tmp_path / "binary"
    other.mkdir()
    for name, records in cifar_files(module).items():
        (other / name).write_bytes(records.tobytes())
    for part, expected in zip(found, module.load_data(path=other), strict=True):
        np.testing.assert_array_equal(part[0], expected[0])
        np.testing.assert_array_equal(part[1], expected[1])


class Command:
    """What a hostile pickle does."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickles_are_never_run(tmp_path):
    victim = tmp_path / "victim"
    for evil in (Command(str(victim)), {b"data": Command(str(victim))}):
        for protocol in (0, 2, 4):
            data = pickle.dumps(evil, protocol)
            with pytest.raises(ValueError, match=r"x\.bin: not a plain pickle: it (calls|uses)"):
                read_pickle(data, tmp_path / "x.bin")
    assert not victim.exists()


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 5000), st.integers(0, 255))
def test_broken_pickles_are_one_kind_of_error(junk, position, value):
    whole = bytearray(next(iter(pickled_files(cifar10, python2_pickle).values())))
    whole[position % len(whole)] = value
    for data in (junk, bytes(whole), bytes(whole[: position % len(whole)])):
        try:
            read_pickle(data, Path("x"))
        except ValueError as error:
            assert str(error).startswith("x: ")


def test_wrong_python_files_are_named(tmp_path):
    files = pickled_files(cifar10, python2_pickle)
    for wrong in (
        {b"labels": [1, 2]},
        {b"labels": [1], b"data": np.zeros((2, 3072), np.uint8)},
        {b"labels": [1, 300], b"data": np.zeros((2, 3072), np.uint8)},
        {b"labels": [1, 2], b"data": b"text"},
    ):
        write_tar(
            tmp_path / "cifar-10-python.tar.gz", files | {"test_batch": python2_pickle(wrong)}
        )
        with pytest.raises(ValueError, match="test_batch: not a file of cifar10"):
            cifar10.load_data(tmp_path)


def test_cifar100_coarse(tmp_path):
    records = cifar_files(cifar100)
    for name, data in records.items():
        (tmp_path / name).write_bytes(data.tobytes())
    y = cifar100.load_data("coarse", tmp_path)[1][1]
    np.testing.assert_array_equal(y[:, 0], records["test.bin"][:, 0])
    with pytest.raises(ValueError, match="label_mode"):
        cifar100.load_data("other", tmp_path)


def test_broken_cifar(tmp_path):
    records = {name: data.tobytes() for name, data in cifar_files(cifar10).items()}
    archive = tmp_path / "cifar-10-binary.tar.gz"
    write_tar(archive, records)
    whole = archive.read_bytes()
    for cut in (0, 5, 500, len(whole) // 2):
        archive.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="broken or cut short"):
            cifar10.load_data(tmp_path)
    write_tar(archive, {**records, "test_batch.bin": records["test_batch.bin"][:-1]})
    with pytest.raises(ValueError, match=r"test_batch\.bin: expected a multiple of 3073 bytes"):
        cifar10.load_data(tmp_path)
    write_tar(archive, {**records, "test_batch.bin": b"\x0a" + records["test_batch.bin"][1:]})
    with pytest.raises(ValueError, match="expected labels below 10, got 10"):
        cifar10.load_data(tmp_path)
    del records["data_batch_3.bin"]
    write_tar(archive, records)
    with pytest.raises(FileNotFoundError, match=r"it lacks data_batch_3\.bin"):
        cifar10.load_data(tmp_path)


def test_class_names():
    assert len(set(cifar10.CLASS_NAMES)) == len(set(fashion_mnist.CLASS_NAMES)) == 10
    assert len(set(cifar100.CLASS_NAMES)) == 100
