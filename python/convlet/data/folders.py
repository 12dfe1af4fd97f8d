"""Index folders of images: one pass of os.scandir, no look at single files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from convlet.data.image import is_image_name
from convlet.progress import ProgressBar, is_terminal


def printable(name: str | os.PathLike[str]) -> str:
    """A path as text that can be printed and stored; bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@dataclass
class Listing:
    """What a folder holds. paths: of the images, sorted. skipped: {path: why it is left out}."""

    paths: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


class FolderIndex:
    """Lists folders and shows on a terminal how many images it has found.

    follow_links: whether links to folders are entered. A link to a file counts as that file. Links
    that lead nowhere or in circles, hidden files, and what is neither a regular file nor a folder
    (a pipe would block its reader) are skipped and listed.
    """

    def __init__(self, follow_links: bool = False) -> None:
        self.follow_links = follow_links
        self.found = 0
        self._bar = ProgressBar("indexing", None, "files") if is_terminal() else None

    def __enter__(self) -> FolderIndex:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def subfolders(self, folder: str | os.PathLike[str]) -> list[str]:
        """The names of the folders in a folder, sorted, without hidden ones. A link to a folder
        counts as one."""
        names = []
        with _scan(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and _leads_to_folder(entry):
                    names.append(entry.name)
        return sorted(names)

    def images(
        self, folder: str | os.PathLike[str], above: Iterable[str | os.PathLike[str]] = ()
    ) -> Listing:
        """The images in a folder and in the folders below it.

        above: folders that a link below must not lead back to.
        Raises OSError that names a folder which cannot be listed: its images would be missed.
        """
        listing = Listing()
        waiting, entered = [os.fspath(folder)], {_identity(path) for path in above}
        while waiting:
            here = waiting.pop()
            if (identity := _identity(here)) in entered:
                listing.skipped[here] = "a link that leads to a folder already listed"
                continue
            entered.add(identity)
            with _scan(here) as entries:
                for entry in entries:
                    self._sort_out(entry, listing, waiting)
        listing.paths.sort()
        return listing

    def _sort_out(self, entry: os.DirEntry[str], listing: Listing, waiting: list[str]) -> None:
        if entry.name.startswith("."):
            listing.skipped[entry.path] = "hidden"
        elif entry.is_file(follow_symlinks=False) or _leads_to_file(entry):
            if is_image_name(entry.name):
                listing.paths.append(entry.path)
                self._count()
            else:
                listing.skipped[entry.path] = "not an image file"
        elif entry.is_dir(follow_symlinks=False) or (self.follow_links and _leads_to_folder(entry)):
            waiting.append(entry.path)
        elif _leads_to_folder(entry):
            listing.skipped[entry.path] = "a link to a folder (follow_links is off)"
        else:
            link = "a link that leads nowhere" if entry.is_symlink() else "not a regular file"
            listing.skipped[entry.path] = link

    def _count(self) -> None:
        self.found += 1
        if self._bar is not None and self.found % 256 == 0 and self._bar.due():
            self._bar.update(self.found)


def _scan(folder: str | os.PathLike[str]) -> os.scandir[str]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise type(error)(f"{printable(folder)}: cannot be listed: {error.strerror}") from None


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _leads_to_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
