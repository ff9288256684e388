"""Finding image files under a folder, in an order that does not depend on the file system."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm"})
NUMBER = re.compile("([0-9]+)")


@dataclass
class Scan:
    """What lies under a folder.

    Attributes:
        names: Image files relative to the folder, with `/`, in natural order.
        others: Number of other files by lower-case extension.
        broken_links: Symbolic links that lead nowhere.
        repeated_folders: Folders that links reach a second time; they are read once.
        unreadable_folders: Folders that may not be listed.
    """

    names: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    broken_links: int = 0
    repeated_folders: int = 0
    unreadable_folders: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What the user should know, as sentences."""
        notes = []
        if self.broken_links:
            notes.append(f"{_times(self.broken_links, 'symbolic link')} without a target left out.")
        if self.repeated_folders:
            notes.append(f"{_times(self.repeated_folders, 'folder')} reached twice through links, read once.")
        if self.unreadable_folders:
            more = len(self.unreadable_folders) - 5
            shown = ", ".join(self.unreadable_folders[:5]) + (f" and {more:,} more" if more > 0 else "")
            notes.append(f"No permission to list {shown}.")
        return notes


class NameTable:
    """Many strings in two flat buffers: a list of a million strings is copied into every worker by reference counts.

    Args:
        names: File names; any bytes that a file system allows.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._blob = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.fsdecode(self._blob[self._ends[index] : self._ends[index + 1]])


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key that puts `img9` before `img10`; the name itself decides between `img1` and `img01`."""
    parts: list[str | int] = list(NUMBER.split(name))
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, name


def scan_images(root: Path, start: str = "") -> Scan:
    """All image files under `root / start`, hidden ones left out, links followed, each real folder read once.

    Args:
        root: Names are relative to this folder.
        start: Sub-folder to look at, with `/`; empty for `root` itself.

    Raises:
        OSError: `root / start` itself cannot be listed.
    """
    found = Scan()
    first = root / start
    status = first.stat()
    seen = {(status.st_dev, status.st_ino)}
    pending: list[tuple[str, bool]] = _list(first, start, found, seen)[::-1]
    while pending:
        name, is_folder = pending.pop()
        if not is_folder:
            found.names.append(name)
            continue
        try:
            pending.extend(_list(root / name, name, found, seen)[::-1])
        except OSError:
            found.unreadable_folders.append(name)
    return found


def visible_folders(folder: Path) -> list[str]:
    """Names of the sub-folders, naturally sorted, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted((e.name for e in entries if not e.name.startswith(".") and _is_folder(e)), key=natural_key)


def _list(folder: Path, name: str, found: Scan, seen: set[tuple[int, int]]) -> list[tuple[str, bool]]:
    """Images and new sub-folders of one folder as (relative name, is a folder), in natural order."""
    prefix = f"{name}/" if name else ""
    listed = []
    with os.scandir(folder) as entries:
        for entry in sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: natural_key(e.name)):
            if _is_folder(entry):
                status = entry.stat()
                if (status.st_dev, status.st_ino) in seen:
                    found.repeated_folders += 1
                    continue
                seen.add((status.st_dev, status.st_ino))
                listed.append((prefix + entry.name, True))
            elif _is_image(entry, found):
                listed.append((prefix + entry.name, False))
    return listed


def _is_image(entry: os.DirEntry[str], found: Scan) -> bool:
    stem, dot, extension = entry.name.rpartition(".")
    extension = extension.lower() if dot and stem else ""
    if extension not in EXTENSIONS:
        found.others[extension] += 1
        return False
    if entry.is_symlink() and not Path(entry.path).exists():
        found.broken_links += 1
        return False
    return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


def _times(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"
