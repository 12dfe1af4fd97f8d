"""Decoded images kept in memory or in a file that several processes may use at once."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from convlet.data.folders import printable
from convlet.data.preprocessing import Preprocessing


class Cache(Protocol):
    """Pixels by index. `get` fills `out` and says whether it could; it raises ValueError for an
    image that is known to be broken."""

    def get(self, index: int, out: NDArray[np.uint8]) -> bool: ...

    def put(self, index: int, pixels: NDArray[np.uint8]) -> None: ...

    def put_broken(self, index: int) -> None: ...


class MemoryCache:
    """In memory, for this process. Room for all images is set aside, and filled as they come."""

    def __init__(self, count: int, shape: tuple[int, int, int]) -> None:
        self._pixels = np.empty((count, *shape), np.uint8)
        self._there = np.zeros(count, bool)

    def get(self, index: int, out: NDArray[np.uint8]) -> bool:
        if self._there[index]:
            out[...] = self._pixels[index]
            return True
        return False

    def put(self, index: int, pixels: NDArray[np.uint8]) -> None:
        self._pixels[index] = pixels
        self._there[index] = True

    def put_broken(self, index: int) -> None:
        """The reader remembers them itself."""


# The file: a page of header, a table with one ENTRY per image, the pixels of all images.
MAGIC = b"convlet cache 1\n"
PAGE = 4096
ENTRY = np.dtype([("stamp", "<u8"), ("check", "<u4"), ("state", "<u4")])
PRESENT, BROKEN = 1, 2


class DiskCache:
    """In a file that is mapped into memory, kept from run to run, for any number of processes.

    Each image has a checksum, and a stamp of its file's size and time of change: an entry that was
    written in part, damaged, or is older than its file is decoded again. Two processes that write
    the same entry write the same bytes. The file appears whole or not at all, with all its space
    reserved.
    """

    def __init__(
        self, path: str | os.PathLike[str], images: Sequence[str], preprocessing: Preprocessing
    ) -> None:
        """Opens the cache at `path`, or makes it.

        Raises ValueError when the file there is none of ours, or holds other images or a different
        preprocessing; OSError when there is no room.
        """
        self.path = Path(path)
        self._images = images
        self._shape = preprocessing.input_shape
        self._item = int(np.prod(self._shape))
        self._header = _header(images, preprocessing)
        table = len(images) * ENTRY.itemsize
        self._begin = PAGE + -(-table // PAGE) * PAGE
        self._size = self._begin + len(images) * self._item
        if not self.path.exists():
            self._create()
        self._open()
        self._checked = np.zeros(len(images), bool)
        self._stamps = np.array([_stamp(image) for image in images], np.uint64)

    def _create(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                file.write(self._header)
                file.flush()
                # Space that is promised but not there would kill the process when it is written.
                os.posix_fallocate(file.fileno(), 0, self._size)
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(temporary, self.path)  # unlike a rename, it spares another's new file
        except OSError as error:
            raise type(error)(
                f"{self.path}: cannot be made, with {self._size / 1e9:.1f} GB: {error.strerror}"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)

    def _open(self) -> None:
        with self.path.open("r+b") as file:
            header = file.read(PAGE)
            if not header.startswith(MAGIC):
                raise ValueError(f"{self.path}: is not a cache of images; choose another file")
            if header != self._header:
                raise ValueError(
                    f"{self.path}: holds {_described(header)}, expected "
                    f"{_described(self._header)}; delete it or choose another file"
                )
            if os.fstat(file.fileno()).st_size != self._size:
                raise ValueError(f"{self.path}: is damaged (its size is wrong); delete it")
            self._map = mmap.mmap(file.fileno(), self._size)
        self._entries = np.frombuffer(self._map, ENTRY, len(self._images), PAGE)
        pixels = np.frombuffer(self._map, np.uint8, len(self._images) * self._item, self._begin)
        self._pixels = pixels.reshape(len(self._images), *self._shape)

    def get(self, index: int, out: NDArray[np.uint8]) -> bool:
        entry = self._entries[index]
        if entry["stamp"] != self._stamps[index]:
            return False
        if entry["state"] == BROKEN:
            raise ValueError(
                f"{printable(self._images[index])}: could not be read before ({self.path} says so)"
            )
        if entry["state"] != PRESENT:
            return False
        out[...] = self._pixels[index]
        if not self._checked[index]:  # once per process
            if zlib.crc32(out) != entry["check"]:
                return False
            self._checked[index] = True
        return True

    def put(self, index: int, pixels: NDArray[np.uint8]) -> None:
        self._pixels[index] = pixels
        self._entries[index] = (self._stamps[index], zlib.crc32(pixels), PRESENT)

    def put_broken(self, index: int) -> None:
        self._entries[index] = (self._stamps[index], 0, BROKEN)


def _header(images: Sequence[str], preprocessing: Preprocessing) -> bytes:
    names = hashlib.blake2b(digest_size=16)
    for image in images:
        names.update(os.fsencode(os.path.abspath(image)) + b"\0")
    content = {
        "count": len(images),
        "images": names.hexdigest(),
        "preprocessing": preprocessing.to_config(),
    }
    return (MAGIC + json.dumps(content, sort_keys=True).encode()).ljust(PAGE, b"\0")


def _described(header: bytes) -> str:
    try:
        content = json.loads(header[len(MAGIC) :].rstrip(b"\0"))
        p, names = content["preprocessing"], content["images"]
        return (
            f"{content['count']} images ({names[:8]}) as {p['size']} {p['color_mode']} "
            f"{p['resize']} {p['interpolation']}"
        )
    except (ValueError, KeyError, TypeError):
        return "nothing readable"


def _stamp(image: str) -> int:
    try:
        status = os.stat(image)
    except OSError:
        return 0
    text = f"{status.st_size} {status.st_mtime_ns}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
