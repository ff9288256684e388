"""What lies under a folder, kept in the user's cache as long as no folder in it changes.

An entry is believed when every folder that was listed still has its modification time and its listing, links lead
where they led, and what could not be listed still cannot. Listing takes an eighth of the time that it takes to
classify and sort what is listed. Sizes and modification times of the files, once somebody asked for them, are kept as
well; what relies on them compares them again, see `FileSource`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibot_cli.cache_folder import cache_folder, cache_limit, remove_old, used
from ibot_cli.data.indexing.array_file import DamagedFile, read_arrays, write_arrays
from ibot_cli.data.indexing.file_states import COARSE, FileStates
from ibot_cli.data.indexing.name_table import NameTable
from ibot_cli.data.scan import REPEATED, UNREADABLE, Scan, Visited, link_state, listing_digest, scan_images

KIND = "folders"
SMALL = ("groups", "broken_links", "repeated_folders", "unreadable_folders")
VERSION = 1


class FolderIndex:
    """Image files under a folder.

    Args:
        found: What the scan found; its names are not kept there.
        names: The image files.
        path: The entry in the cache, or None where it cannot be kept.
        states: Of the files, with the fingerprint that they gave, where somebody asked before.
    """

    def __init__(
        self, found: Scan, names: NameTable, path: Path | None, states: tuple[FileStates, str] | None = None
    ) -> None:
        self.found = found
        self.names = names
        self.states = states
        self._complete = True
        self._path = path

    def remember(self, states: FileStates, fingerprint: str) -> None:
        """Keep what the files are."""
        self.states = states, fingerprint
        if states.settled:
            self.save()

    def __getstate__(self) -> dict[str, Any]:
        """For other processes, which read files but write no entry."""
        return self.__dict__ | {"found": Scan(), "_complete": False}

    def forget(self) -> None:
        """Drop the entry: a file is not what it says."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def save(self) -> None:
        """Write the entry, where there is a place for it and something to gain."""
        if self._path is None or not len(self.names) or not self._complete:
            return
        about = {"version": VERSION, "scan": _plain(self.found), "fingerprint": None}
        arrays: dict[str, NDArray[Any]] = {
            "names": self.names.blob,
            "folders": NameTable(visited.name for visited in self.found.visited).blob,
            "folder_states": np.array([(v.mtime, v.listing) for v in self.found.visited], dtype=np.int64).reshape(-1),
            "links": NameTable(self.found.links).blob,
            "link_states": np.array(list(self.found.links.values()), dtype=np.uint8),
        }
        if self.states is not None:
            states, about["fingerprint"] = self.states
            arrays |= {"sizes": states.sizes, "mtimes": states.mtimes}
            about["taken"] = states.taken
        with contextlib.suppress(OSError):
            write_arrays(self._path, about, arrays)
            remove_old(self._path.parent)


def open_index(root: Path, start: str = "") -> FolderIndex:
    """The image files under `root / start`, as `scan_images` finds them; from the cache where nothing changed.

    Raises:
        OSError: `root / start` itself cannot be listed.
        UsageError: The limit of the cache is not a size.
    """
    root = root.resolve()
    path = _entry(root, start) if cache_limit() else None
    if path is not None:
        with contextlib.suppress(OSError, DamagedFile, KeyError, TypeError, ValueError):
            stored = _stored(path)
            if _unchanged(root, stored.found):
                used(path)
                return stored
            path.unlink()  # nothing may replace it: where no image is left, or a folder changed just now
    began = time.time_ns()
    found = scan_images(root, start)
    settled = max(visited.mtime for visited in found.visited) < began - COARSE
    names, found.names = NameTable(found.names), []
    index = FolderIndex(found, names, path if settled else None)
    index.save()
    return index


def _entry(root: Path, start: str) -> Path:
    digest = hashlib.sha256(os.fsencode(f"{root}\0{start}")).hexdigest()
    return cache_folder(KIND) / f"{digest[:32]}.index"


def _plain(found: Scan) -> dict[str, Any]:
    """The small parts of a scan, for JSON; what else lies there matters only where there is no image."""
    return {name: getattr(found, name) for name in SMALL}


def _stored(path: Path) -> FolderIndex:
    about, arrays = read_arrays(path)
    if about["version"] != VERSION:
        raise DamagedFile(str(path))
    found = Scan(**about["scan"])
    found.groups = [(name, count) for name, count in found.groups]
    states = arrays["folder_states"].reshape(-1, 2).tolist()
    folders = NameTable.of(arrays["folders"])
    found.visited = [Visited(name, *state) for name, state in zip(folders, states, strict=True)]
    found.links = dict(zip(NameTable.of(arrays["links"]), arrays["link_states"].tolist(), strict=True))
    known = None
    if about["fingerprint"] is not None:
        known = FileStates(arrays["sizes"], arrays["mtimes"], about["taken"]), about["fingerprint"]
    return FolderIndex(found, NameTable.of(arrays["names"]), path, known)


def _unchanged(root: Path, found: Scan) -> bool:
    """Whether a scan would find the same."""
    seen: set[tuple[int, int]] = set()
    for visited in found.visited:
        path = os.path.join(root, visited.name)  # noqa: PTH118  # Path objects take ten times as long
        status = os.stat(path)  # noqa: PTH116
        identity = (status.st_dev, status.st_ino)
        if (identity in seen) != (visited.listing == REPEATED):
            return False
        seen.add(identity)
        if visited.listing != REPEATED and (status.st_mtime_ns, _listing(path)) != (visited.mtime, visited.listing):
            return False
    return all(link_state(os.path.join(root, name)) == state for name, state in found.links.items())  # noqa: PTH118


def _listing(path: str) -> int:
    try:
        return listing_digest(os.listdir(path))  # noqa: PTH208
    except OSError:
        return UNREADABLE
