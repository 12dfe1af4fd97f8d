"""Caches of decoded images: in memory and in a file, damaged, outdated, shared by processes."""

import errno
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from convlet.data import ImageDataset, Preprocessing, open_source
from convlet.data import reader as reader_module
from convlet.data.cache import PAGE, DiskCache
from pictures import encoded, pixels, write_images

SMALL = Preprocessing((6, 8))
COUNT = 11


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "images", {"a": 6, "b": 5})
    return tmp_path / "images"


@pytest.fixture
def reads(monkeypatch):
    """The files that are read from now on."""
    found = []
    whole = reader_module.read_bytes
    monkeypatch.setattr(reader_module, "read_bytes", lambda path: found.append(path) or whole(path))
    return found


def dataset(folder, preprocessing=SMALL, **options) -> ImageDataset:
    options = {"batch_size": 4, "sampling": None} | options
    return ImageDataset.from_source(open_source(folder), preprocessing, **options)


def images(data) -> np.ndarray:
    return np.concatenate([x for x, _ in data])


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_each_file_is_read_once(folder, tmp_path, reads, kind):
    plain = images(dataset(folder))
    reads.clear()
    cached = dataset(folder).cache("" if kind == "memory" else tmp_path / "cache.bin")
    for _ in range(3):
        np.testing.assert_array_equal(images(cached), plain)
    assert len(reads) == COUNT
    if kind == "disk":  # a later run
        np.testing.assert_array_equal(images(dataset(folder).cache(tmp_path / "cache.bin")), plain)
        assert len(reads) == COUNT


def test_cached_pixels_cannot_be_changed_through_a_batch(folder, tmp_path):
    plain = images(dataset(folder))
    for data in (dataset(folder).cache(), dataset(folder).cache(tmp_path / "c")):
        for _ in range(2):
            for x, _ in data:
                x[:] = 0
        np.testing.assert_array_equal(images(data), plain)


def test_broken_images_are_remembered_from_run_to_run(folder, tmp_path, reads):
    bad = folder / "a" / "2.png"
    bad.write_bytes(b"hello")
    data = dataset(folder).cache(tmp_path / "c")
    assert len(images(data)) == COUNT - 1
    reads.clear()
    data = dataset(folder).cache(tmp_path / "c")
    assert len(images(data)) == COUNT - 1
    assert reads == []
    (reason,) = data.broken.values()
    assert "2.png: could not be read before" in reason
    bad.write_bytes(encoded(pixels(6, 8, 3)))  # and when it is mended it counts again
    assert len(images(dataset(folder).cache(tmp_path / "c"))) == COUNT
    assert reads == [str(bad)]


def test_a_file_that_has_changed_is_read_again(folder, tmp_path, reads):
    images(dataset(folder).cache(tmp_path / "c"))
    changed = folder / "b" / "0.png"
    changed.write_bytes(encoded(pixels(6, 8, 3, seed=7)))
    reads.clear()
    found = images(dataset(folder).cache(tmp_path / "c"))
    assert reads == [str(changed)]
    np.testing.assert_array_equal(found, images(dataset(folder)))


def test_damaged_entries_are_made_again(folder, tmp_path, reads):
    plain = images(dataset(folder))
    path = tmp_path / "c"
    images(dataset(folder).cache(path))
    for at in (PAGE + 20, 2 * PAGE + 3 * 6 * 8 * 3 + 5):  # in the table, and in the pixels
        data = bytearray(path.read_bytes())
        data[at] ^= 0xFF
        path.write_bytes(data)
    reads.clear()
    np.testing.assert_array_equal(images(dataset(folder).cache(path)), plain)
    assert 1 <= len(reads) <= 2
    reads.clear()
    np.testing.assert_array_equal(images(dataset(folder).cache(path)), plain)
    assert reads == []


def test_a_file_that_does_not_fit_is_named(folder, tmp_path):
    path = tmp_path / "c"
    dataset(folder).cache(path)
    with pytest.raises(ValueError, match=r"c: holds 11 images .* as \[6, 8\] rgb stretch bilinear"):
        dataset(folder, Preprocessing((6, 9))).cache(path)
    (folder / "a" / "5.png").unlink()
    with pytest.raises(ValueError, match="c: holds 11 images .* expected 10 images"):
        dataset(folder).cache(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"c: "):
        dataset(folder).cache(path)
    path.write_text("my only copy of something else")
    with pytest.raises(ValueError, match="c: is not a cache of images; choose another file"):
        dataset(folder).cache(path)
    assert path.read_text() == "my only copy of something else"


def test_a_cache_cut_short_is_damaged(folder, tmp_path):
    path = tmp_path / "c"
    dataset(folder).cache(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="c: is damaged"):
        dataset(folder).cache(path)


def test_a_full_disk_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(file, begin, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    (tmp_path / "caches").mkdir()
    with pytest.raises(OSError, match=r"c: cannot be made, with 0\.0 GB: No space left"):
        dataset(folder).cache(tmp_path / "caches" / "c")
    assert list((tmp_path / "caches").iterdir()) == []


def test_too_little_memory_is_said(folder, monkeypatch):
    monkeypatch.setattr("convlet.data.source._available_memory", lambda: 100)
    with pytest.raises(ValueError, match="11 images of 6x8x3 need"):
        dataset(folder).cache()


def test_two_makers_share_one_file(folder, tmp_path, monkeypatch):
    """The one that comes second, when both have seen that there is none, takes the first's."""
    whole = DiskCache._create

    def late(self):
        monkeypatch.setattr(DiskCache, "_create", whole)
        first = dataset(folder).cache(self.path)
        self.inode = self.path.stat().st_ino
        images(first)
        whole(self)
        assert self.path.stat().st_ino == self.inode

    monkeypatch.setattr(DiskCache, "_create", late)
    second = dataset(folder).cache(tmp_path / "c")
    np.testing.assert_array_equal(images(second), images(dataset(folder)))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_processes_at_once(folder, tmp_path):
    code = """
        import sys, zlib
        import numpy as np
        from convlet.data import ImageDataset, Preprocessing, open_source
        source = open_source(sys.argv[1])
        data = ImageDataset.from_source(
            source, Preprocessing((60, 80)), batch_size=2, sampling=None
        ).cache(sys.argv[2])
        for _ in range(20):
            print(zlib.crc32(np.concatenate([x for x, _ in data])))
    """
    program = [sys.executable, "-c", textwrap.dedent(code), str(folder), str(tmp_path / "c")]
    running = [subprocess.Popen(program, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = [process.communicate(timeout=120)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(set(sum(sums, []))) == 1
    assert [len(lines) for lines in sums] == [20, 20, 20]
