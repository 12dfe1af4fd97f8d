"""Read the published files of MNIST and CIFAR: find or fetch them, bound them, check them."""

from __future__ import annotations

import gzip
import math
import os
import tarfile
import zlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Parts = tuple[Part, Part]
MAX_SAMPLES = 1_000_000  # a broken header must not make us reserve more than such a set needs
CIFAR_PIXELS = 3 * 32 * 32


def folder_of(name: str) -> Path:
    """Where the files of a data set are looked for when no path is given."""
    return Path(os.environ.get("CONVLET_DATA") or "~/.convlet/datasets").expanduser() / name


# MNIST's IDX files: big-endian magic (type 8 = uint8, rank), one size per axis, then the values.


def load_idx(
    name: str, url: str, md5: tuple[str, str, str, str], path: str | PathLike[str] | None
) -> Parts:
    """The four IDX files of MNIST or Fashion-MNIST; md5: of their .gz. Errors as in their
    `load_data`."""
    folder = Path(path) if path is not None else folder_of(name)
    names = [
        f"{part}-{kind}-ubyte"
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    files = [_packed_or_plain(folder, n) for n in names]
    if missing := [i for i, file in enumerate(files) if file is None]:
        for i in missing:
            file = f"{url}{names[i]}.gz"
            files[i] = _fetched(name, file, md5[i], folder, path is None)
    x_train, y_train, x_test, y_test = (
        _read_idx(file, rank) for file, rank in zip(files, (3, 1, 3, 1), strict=True)
    )
    for part, x, y in (("train", x_train, y_train), ("t10k", x_test, y_test)):
        if len(x) != len(y):
            raise ValueError(f"{folder}: {part} holds {len(x)} images but {len(y)} labels")
        if y.size and y.max() > 9:
            raise ValueError(f"{folder}: {part} labels: expected 0..9, got {y.max()}")
    return (x_train, y_train), (x_test, y_test)


def _packed_or_plain(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)


def _read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            head = file.read(4 + 4 * rank).ljust(4 + 4 * rank, b"\0")
            shape = tuple(int(n) for n in np.frombuffer(head[4:], ">u4"))
            if head[:4] != bytes([0, 0, 8, rank]) or shape[1:] != (28, 28)[: rank - 1]:
                axes = ", 28, 28" if rank == 3 else ""
                raise ValueError(f"{path}: not an IDX file of uint8 values (N{axes})")
            if shape[0] > MAX_SAMPLES:
                raise ValueError(f"{path}: claims {shape[0]} samples")
            count = math.prod(shape)
            values = file.read(count + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: broken or cut short: {error}; download it again") from error
    if len(values) != count:
        kind = "cut short" if len(values) < count else "longer than its header says"
        raise ValueError(f"{path}: {kind}; download it again")
    return np.frombuffer(values, np.uint8).reshape(shape).copy()


# CIFAR's binary version: per image its label bytes, then 1024 red, 1024 green and 1024 blue pixels.


@dataclass(frozen=True)
class CifarArchive:
    """name, where the binary version is published with which MD5, the files of each part, and the
    classes of each label byte. The python version's files have the same names without .bin, and its
    labels the names in label_keys."""

    name: str
    url: str
    md5: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_classes: tuple[int, ...]
    label_keys: tuple[bytes, ...]


def load_cifar(
    archive: CifarArchive, path: str | PathLike[str] | None, label_byte: int = 0
) -> Parts:
    """CIFAR-10 or CIFAR-100 from its .tar.gz or its .bin files. Errors as in their `load_data`."""
    place = Path(path) if path is not None else folder_of(archive.name)
    name = archive.url.rsplit("/", 1)[1]
    names = archive.train + archive.test
    packed = [place / name, place / name.replace("binary", "python")] if place.is_dir() else [place]
    found = _unpacked(place, archive) if place.is_dir() else {}
    if not found:
        file = next((file for file in packed if file.is_file()), None)
        if file is None:
            file = _fetched(archive.name, archive.url, archive.md5, place, path is None)
        found = _read_tar(file, archive)
    if missing := [n for n in names if n not in found]:
        what = f"{name}: it lacks {', '.join(missing)}"
        raise FileNotFoundError(_what_to_do(archive.name, what, archive.url, place))

    def part(files: tuple[str, ...]) -> Part:
        records = np.concatenate([_records(found[n], place / n, archive) for n in files])
        pixels = records[:, len(archive.label_classes) :].reshape(-1, 3, 32, 32)
        labels = records[:, label_byte : label_byte + 1]
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), np.ascontiguousarray(labels)

    return part(archive.train), part(archive.test)


def _plain_name(name: str) -> str:
    return name.removesuffix(".bin")


def _limit(archive: CifarArchive) -> int:
    return MAX_SAMPLES * (CIFAR_PIXELS + len(archive.label_classes))


def _unpacked(folder: Path, archive: CifarArchive) -> dict[str, bytes]:
    """The content of the binary version's files below a folder, or of the python version's."""
    found = {}
    for wanted in archive.train + archive.test:
        for file in sorted(folder.rglob(wanted)):
            with file.open("rb") as stream:
                found[wanted] = stream.read(_limit(archive) + 1)
    if not found:
        for wanted in archive.train + archive.test:
            for file in sorted(folder.rglob(_plain_name(wanted))):
                if file.is_file():
                    found[wanted] = _pickled_records(file.read_bytes(), file, archive)
    return found


def _read_tar(path: Path, archive: CifarArchive) -> dict[str, bytes]:
    names = archive.train + archive.test
    pickled = {_plain_name(name): name for name in names}
    found = {}
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                if member.isfile() and (name in names or name in pickled):
                    data = tar.extractfile(member).read(_limit(archive) + 1)
                    if name in pickled:
                        data = _pickled_records(data, path / name, archive)
                    found[pickled.get(name, name)] = data
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: broken or cut short: {error}; download it again") from error
    return found


def _pickled_records(data: bytes, path: Path, archive: CifarArchive) -> bytes:
    """A file of the python version in the form of the binary version."""
    from convlet.datasets.pickled import array_of, read_pickle

    content = read_pickle(data, path)
    try:
        pixels = array_of(content[b"data"])
        labels = [np.array(content[key]) for key in archive.label_keys]
        table = np.stack(labels, axis=1)
        if pixels.shape != (len(table), CIFAR_PIXELS) or table.min() < 0 or table.max() > 255:
            raise ValueError(f"{len(table)} labels for pixels {pixels.shape}")
        return np.concatenate([table.astype(np.uint8), pixels], axis=1).tobytes()
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a file of {archive.name}: {error}") from None


def _records(data: bytes, path: Path, archive: CifarArchive) -> NDArray[np.uint8]:
    size = len(archive.label_classes) + CIFAR_PIXELS
    if len(data) == 0 or len(data) % size:
        raise ValueError(
            f"{path}: expected a multiple of {size} bytes, got {len(data)}; download it again"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    for byte, classes in enumerate(archive.label_classes):
        if records[:, byte].max() >= classes:
            raise ValueError(
                f"{path}: expected labels below {classes}, got {records[:, byte].max()}"
            )
    return records


def _fetched(name: str, url: str, md5: str, folder: Path, allowed: bool) -> Path:
    """The file, fetched into the folder; FileNotFoundError that says what to do when it cannot be.

    allowed: not where the user has named the folder.
    """
    file = url.rsplit("/", 1)[1]
    what = _what_to_do(name, file, url, folder)
    if not allowed:
        raise FileNotFoundError(what)
    from convlet.datasets.download import Remote, fetch

    try:
        return fetch(Remote(file, url, md5), folder)
    except OSError as error:
        raise FileNotFoundError(f"{what} (fetching it failed: {error})") from None


def _what_to_do(name: str, files: str, url: str, folder: Path) -> str:
    return f"{name}: not found in {folder}: download {files} from {url} and put it there"
