"""Fetching published files, from a server on this machine."""

import hashlib
import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from convlet.datasets import cifar10, mnist
from convlet.datasets.download import DownloadError, Remote, fetch
from test_datasets import cifar_files, write_mnist, write_tar

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; `mood` decides how."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"file.bin": CONTENT}
        self.requests = []
        self.mood = "well"
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rsplit("/", 1)[1]
        begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.server.requests.append((name, begin))
        data = self.server.files.get(name)
        if data is None:
            self.send_error(404)
            return
        if self.server.mood == "no ranges":
            begin = 0
        if begin >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        rest = data[begin:]
        self.wfile.write(rest[:100_000] if self.server.mood == "breaks off" else rest)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.delenv("CONVLET_OFFLINE", raising=False)
    monkeypatch.setenv("CONVLET_MIRROR", server.url)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def remote(**changes) -> Remote:
    return Remote(
        **{"name": "file.bin", "url": "http://127.0.0.1:9/file.bin", "md5": MD5} | changes
    )


def test_a_file_is_fetched_once(server, tmp_path, capfd):
    path = fetch(remote(), tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["file.bin"]
    assert capfd.readouterr().err == f"fetching {server.url}/file.bin (0.3 MB)\n"


@pytest.mark.parametrize("mood", ["well", "no ranges"])
def test_what_has_arrived_is_kept(server, tmp_path, mood):
    server.files["long.bin"] = CONTENT * 2
    server.mood = "breaks off"
    with pytest.raises(DownloadError, match="broke off .* bytes before its end; call again"):
        fetch(remote(name="long.bin"), tmp_path)
    part = tmp_path / ".long.bin.part"
    assert part.stat().st_size == 300_000  # in three tries
    assert [begin for _, begin in server.requests] == [0, 100_000, 200_000]
    server.mood = mood
    long = remote(name="long.bin", md5=hashlib.md5(CONTENT * 2).hexdigest())
    assert fetch(long, tmp_path).read_bytes() == CONTENT * 2
    assert os.listdir(tmp_path) == ["long.bin"]


def test_a_part_that_is_whole_is_taken_and_a_wrong_one_thrown_away(server, tmp_path):
    (tmp_path / ".file.bin.part").write_bytes(CONTENT)
    assert fetch(remote(), tmp_path).read_bytes() == CONTENT
    (tmp_path / "file.bin").unlink()
    (tmp_path / ".file.bin.part").write_bytes(b"x" * 400_000)
    with pytest.raises(DownloadError, match=f"expected MD5 {MD5}, got "):
        fetch(remote(), tmp_path)
    assert os.listdir(tmp_path) == []
    assert fetch(remote(), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match="expected MD5 0, got " + MD5):
        fetch(remote(md5="0"), tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_is_too_long_is_not_taken(server, tmp_path):
    with pytest.raises(DownloadError, match="longer than the 1000 bytes"):
        fetch(remote(limit=1000), tmp_path)
    assert not (tmp_path / "file.bin").exists()


def test_servers_that_do_not_have_it(server, tmp_path, monkeypatch):
    with pytest.raises(DownloadError, match=r"other\.bin: HTTP 404"):
        fetch(remote(name="other.bin"), tmp_path)
    monkeypatch.delenv("CONVLET_MIRROR")
    with pytest.raises(DownloadError, match="127.0.0.1:9/file.bin: .*refused"):
        fetch(remote(), tmp_path)
    monkeypatch.setenv("CONVLET_OFFLINE", "1")
    with pytest.raises(DownloadError, match="CONVLET_OFFLINE is set"):
        fetch(remote(), tmp_path)


def test_two_processes_take_turns(server, tmp_path):
    code = (
        "import sys; from pathlib import Path; from convlet.datasets.download import *;"
        "fetch(Remote('file.bin', '', sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, MD5, str(tmp_path)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["file.bin"]


def test_mnist_is_fetched(server, tmp_path, monkeypatch):
    write_mnist(tmp_path / "source")
    server.files = {path.name: path.read_bytes() for path in (tmp_path / "source").iterdir()}
    names = [
        f"{part}-{kind}-ubyte.gz"
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    sums = tuple(hashlib.md5(server.files[name]).hexdigest() for name in names)
    monkeypatch.setattr(mnist, "MD5", sums)
    monkeypatch.setenv("CONVLET_DATA", str(tmp_path / "data"))
    expected = mnist.load_data(tmp_path / "source")
    for _ in range(2):
        for part, other in zip(mnist.load_data(), expected, strict=True):
            np.testing.assert_array_equal(part[0], other[0])
    assert len(server.requests) == 4
    (tmp_path / "data" / "mnist" / names[0]).unlink()
    with pytest.raises(FileNotFoundError, match="not found in"):
        mnist.load_data(tmp_path / "data" / "mnist")  # a folder that was named is only read
    assert len(server.requests) == 4


def test_cifar_is_fetched(server, tmp_path, monkeypatch):
    files = {name: records.tobytes() for name, records in cifar_files(cifar10).items()}
    write_tar(tmp_path / "cifar-10-binary.tar.gz", files)
    data = (tmp_path / "cifar-10-binary.tar.gz").read_bytes()
    server.files = {"cifar-10-binary.tar.gz": data}
    monkeypatch.setenv("CONVLET_DATA", str(tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match=r"fetching it failed: .*expected MD5 c32a1d4"):
        cifar10.load_data()
    archive = replace(cifar10.ARCHIVE, md5=hashlib.md5(data).hexdigest())
    monkeypatch.setattr(cifar10, "ARCHIVE", archive)
    assert cifar10.load_data()[0][0].shape == (15, 32, 32, 3)
