"""Fetch published files: checked, resumed where a fetch broke off, whole or not there."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from convlet.progress import ProgressBar, is_terminal

TIMEOUT = 20  # seconds without a byte
BLOCK = 1 << 16
TRIES = 3


@dataclass(frozen=True)
class Remote:
    """A published file: name, URL, MD5 as its publisher gives it, and its size at most."""

    name: str
    url: str
    md5: str
    limit: int = 1 << 30


class DownloadError(OSError):
    """Why a file could not be fetched."""


def fetch(remote: Remote, folder: Path) -> Path:
    """Put the file into `folder` and return its path.

    What has arrived is kept in a .part file, from which a later call goes on; only a file with the
    right checksum gets its name. $CONVLET_MIRROR, a URL, replaces all of the address but the name.
    $CONVLET_OFFLINE forbids it. Two processes take turns.
    Raises DownloadError that says why in one line.
    """
    if os.environ.get("CONVLET_OFFLINE"):
        raise DownloadError("CONVLET_OFFLINE is set")
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / remote.name, folder / f".{remote.name}.part"
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.is_file():  # another process was faster
            part.unlink(missing_ok=True)
            return path
        for attempt in range(TRIES):
            try:
                _receive(remote, file)
                break
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                if attempt == TRIES - 1 or not _worth_another_try(error):
                    raise DownloadError(f"{_url(remote)}: {_reason(error)}") from None
        if (found := _md5(part)) != remote.md5:
            part.unlink()
            raise DownloadError(f"{_url(remote)}: expected MD5 {remote.md5}, got {found}")
        os.fsync(file.fileno())
        part.replace(path)
    return path


def _url(remote: Remote) -> str:
    mirror = os.environ.get("CONVLET_MIRROR")
    return f"{mirror.rstrip('/')}/{remote.name}" if mirror else remote.url


def _receive(remote: Remote, file) -> None:
    """Append what is missing; begin anew when the server does not go on where we stopped."""
    request = urllib.request.Request(_url(remote), headers={"User-Agent": "convlet"})
    here = os.fstat(file.fileno()).st_size
    if here:
        request.add_header("Range", f"bytes={here}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing, or what is here is wrong: the checksum decides
            return
        raise
    with response:
        if response.status != 206:
            file.truncate(0)
            here = 0
        rest = response.headers.get("Content-Length")
        total = here + int(rest) if rest and rest.isdigit() else None
        print(f"fetching {_url(remote)} ({_megabytes(total)})", file=sys.stderr, flush=True)
        _copy(response, file, here, total, remote)


def _copy(response, file, here: int, total: int | None, remote: Remote) -> None:
    bar = None
    if is_terminal(sys.stderr):
        bar = ProgressBar(remote.name, total, "bytes", sys.stderr)
    try:
        while block := response.read(BLOCK):
            here += len(block)
            if here > remote.limit:
                file.truncate(0)
                raise DownloadError(f"longer than the {remote.limit} bytes that it may have")
            file.write(block)
            if bar is not None and bar.due():
                bar.update(here)
    finally:
        file.flush()
        if bar is not None:
            bar.close()
    if total is not None and here < total:
        raise http.client.IncompleteRead(b"", total - here)


def _worth_another_try(error: Exception) -> bool:
    broken_off = (http.client.HTTPException, ConnectionError, TimeoutError)
    return isinstance(error, broken_off) and not isinstance(error, DownloadError)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"{error.reason}"
    if isinstance(error, http.client.IncompleteRead):
        return f"broke off {error.expected} bytes before its end; call again to go on"
    return str(error) or type(error).__name__


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _megabytes(size: int | None) -> str:
    return "of unknown size" if size is None else f"{size / 1e6:.1f} MB"
