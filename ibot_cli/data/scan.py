"""Finding image files under a folder, in an order that does not depend on the file system."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm"})
NUMBER = re.compile("[0-9]+")
UNREADABLE, REPEATED = -1, -2
BROKEN, FILE, FOLDER = 0, 1, 2


@dataclass
class Visited:
    """A folder that was met, as it was.

    Attributes:
        name: Relative to the root; empty for the root itself.
        mtime: When it was changed, nanoseconds; taken before it was listed.
        listing: `listing_digest` of it, or `UNREADABLE`, or `REPEATED` for one that was met before.
    """

    name: str
    mtime: int
    listing: int


@dataclass
class Scan:
    """What lies under a folder.

    Attributes:
        names: Image files relative to the root, with `/`, in natural order.
        groups: First-level folders in the order of `names`, with the number of images in each.
        others: Number of other files by lower-case extension.
        broken_links: Symbolic links that lead nowhere.
        repeated_folders: Folders that links reach a second time; they are read once.
        unreadable_folders: Folders that may not be listed.
        visited: All folders that were met.
        links: Where symbolic links that are no folders lead: `BROKEN` or `FILE`.
    """

    names: list[str] = field(default_factory=list)
    groups: list[tuple[str, int]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    broken_links: int = 0
    repeated_folders: int = 0
    unreadable_folders: list[str] = field(default_factory=list)
    visited: list[Visited] = field(default_factory=list)
    links: dict[str, int] = field(default_factory=dict)

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


def natural_key(name: str) -> str:
    """Sort key that puts `img9` before `img10`; the name itself decides between `img1` and `img01`.

    A number becomes a zero character, which no file name holds and which is below all others, the count of its digits
    and the digits: keys are compared in C, several times faster than lists of words and numbers.
    """
    return f"{NUMBER.sub(_counted, name)}\0\0{name}"


def natural_order(names: list[str]) -> list[str]:
    """The names sorted by `natural_key`, faster where they begin alike."""
    if len(names) < 3:
        return sorted(names, key=natural_key)
    first, last = min(names), max(names)
    alike = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    begin = len(first[:alike].rstrip("0123456789"))  # a number is not cut in two
    return sorted(names, key=lambda name: natural_key(name[begin:]))


def _counted(number: re.Match[str]) -> str:
    digits = number[0].lstrip("0")
    return f"\0{chr(len(digits) + 1)}{digits}"


def scan_images(root: Path, start: str = "") -> Scan:
    """All image files under `root / start`, hidden ones left out, links followed, each real folder read once.

    Args:
        root: Names are relative to this folder.
        start: Sub-folder to look at, with `/`; empty for `root` itself.

    Raises:
        OSError: `root / start` itself cannot be listed.
    """
    found = Scan()
    status = (root / start).stat()
    seen = {(status.st_dev, status.st_ino)}
    found.visited.append(Visited(start, status.st_mtime_ns, UNREADABLE))
    for item in _list(root, found.visited[0], found, seen):
        if isinstance(item, str):
            found.names.append(item)
            continue
        before = len(found.names)
        _walk(root, item, found, seen)
        found.groups.append((item.name.rpartition("/")[2], len(found.names) - before))
    return found


def visible_folders(folder: Path) -> list[str]:
    """Names of the sub-folders, naturally sorted, hidden ones left out."""
    with os.scandir(folder) as entries:
        return natural_order([e.name for e in entries if not e.name.startswith(".") and _is_folder(e)])


def listing_digest(names: Iterable[str]) -> int:
    """What tells one listing of a folder from another: names in the order in which the system gives them."""
    return int.from_bytes(hashlib.blake2b(os.fsencode("\0".join(names)), digest_size=7).digest())


def link_state(path: str) -> int:
    """Where a path leads: `BROKEN`, `FILE` or `FOLDER`."""
    if os.path.isdir(path):  # noqa: PTH112  # Path objects take ten times as long
        return FOLDER
    return FILE if os.path.exists(path) else BROKEN  # noqa: PTH110


def _walk(root: Path, folder: Visited, found: Scan, seen: set[tuple[int, int]]) -> None:
    """Take all images of the folder into `found`."""
    pending: list[str | Visited] = [folder]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            found.names.append(item)
            continue
        try:
            pending.extend(_list(root, item, found, seen)[::-1])
        except OSError:
            found.unreadable_folders.append(item.name)


def _list(root: Path, folder: Visited, found: Scan, seen: set[tuple[int, int]]) -> list[str | Visited]:
    """Images and new sub-folders of one folder, in natural order."""
    prefix = f"{folder.name}/" if folder.name else ""
    with os.scandir(root / folder.name) as scanned:
        entries = {entry.name: entry for entry in scanned}
    folders = {name: entry for name, entry in entries.items() if name[0] != "." and _is_folder(entry)}
    images = [name for name, entry in entries.items() if name not in folders and _is_image(entry, prefix, found)]
    listed: list[str | Visited] = []
    for name in natural_order([*folders, *images]):
        if name not in folders:
            listed.append(prefix + name)
            continue
        status = folders[name].stat()
        met = Visited(prefix + name, status.st_mtime_ns, UNREADABLE)
        found.visited.append(met)
        if (status.st_dev, status.st_ino) in seen:
            found.repeated_folders += 1
            met.listing = REPEATED
        else:
            seen.add((status.st_dev, status.st_ino))
            listed.append(met)
    folder.listing = listing_digest(entries)  # last: a folder without access to what it lists remains unreadable
    return listed


def _is_image(entry: os.DirEntry[str], prefix: str, found: Scan) -> bool:
    stem, dot, extension = entry.name.rpartition(".")
    if entry.name.startswith("."):
        return False
    extension = extension.lower() if dot and stem else ""
    if entry.is_symlink():
        found.links[prefix + entry.name] = link_state(entry.path)
    if extension not in EXTENSIONS:
        found.others[extension] += 1
        return False
    if found.links.get(prefix + entry.name) == BROKEN:
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
