"""The cache of features on disk: `features/<digest of the key>/` below `ibot` in the user's cache directory.

An entry is used only if its header repeats the whole key and its rows have the checksums that were written with them.
Images that could not be read are tried again: what kept them from being read need not show in the key.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ibot_cli.cache_folder import cache_folder
from ibot_cli.durable import write_json
from ibot_cli.errors import RunError
from ibot_cli.evaluate.feature_cache.entry import DiskStore
from ibot_cli.evaluate.feature_cache.key import FeatureKey
from ibot_cli.evaluate.feature_cache.store import Layout, missing
from ibot_cli.lock import FolderLock

_HEADER, _LOCK, _TRASH = "header.json", "lock", ".removed-"


class FeatureCache:
    """The entry of one key.

    Args:
        key: What the features depend on.
        layout: How rows are to be cut into blocks if the entry is new.
        dtype: Of the features.
        readable: Whether the image of a row can be read; asked for those that could not.

    Attributes:
        notes: What happened that the user should know, as sentences.
    """

    def __init__(self, key: FeatureKey, layout: Layout, dtype: torch.dtype, readable: Callable[[int], bool]) -> None:
        self.notes: list[str] = []
        self.root = cache_folder("features")
        self.directory = self.root / key.digest
        self._key, self._layout, self._dtype, self._readable = key, layout, dtype, readable
        self._lock: FolderLock | None = None

    @property
    def writable(self) -> bool:
        """Whether this process holds the entry's lock."""
        return self._lock is not None

    def open(self, parts: Sequence[str]) -> DiskStore | None:
        """The entry, its rows verified; locked for writing if it lacks anything and nobody else writes.

        Returns:
            None where there is no cache and cannot be one; a note says why.
        """
        try:
            store = self._read()
            if store is None or missing(store, parts) or self._verify(store, parts):
                store = self._claim(store, parts)
            with contextlib.suppress(OSError):
                os.utime(self.directory / _HEADER)  # the entry that was not used for longest goes first
        except OSError as error:
            self.release()
            self.failed(error)
            return None
        return store

    def failed(self, error: OSError) -> None:
        """Note that the disk refuses."""
        reason = error.strerror or str(error)
        self.notes.append(f"The features of {self._key.name} were not cached in {self.root}: {reason}.")

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def discard(self) -> None:
        """Remove the entry, unless another process has begun to write it."""
        self.release()
        _remove(self.directory)

    def trim(self, limit: int) -> None:
        """Remove the entries that were not used for longest until all together take at most `limit` bytes.

        This entry is the last to go; its features stay usable as long as they are open.
        """
        for leftover in self.root.glob(f"{_TRASH}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        sizes = {entry: _size(entry) for entry in _entries(self.root)}
        total = sum(sizes.values())
        for entry in sorted(sizes, key=lambda entry: (entry == self.directory, _used(entry))):
            if total > limit and _remove(entry):
                total -= sizes[entry]
                if entry == self.directory:
                    self.notes.append(
                        f"The features of {self._key.name} take {sizes[entry] / 2**30:.2g} GiB, more than the cache "
                        f"may ({limit / 2**30:.2g} GiB, IBOT_CACHE_GIB), so they were not kept."
                    )

    def _claim(self, store: DiskStore | None, parts: Sequence[str]) -> DiskStore | None:
        """Lock the entry and read it again; without a lock, what can be read of it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = FolderLock(self.directory / _LOCK)
        except RunError:
            self.notes.append(
                f"Another process is caching the features of {self._key.name}, so they were computed without the cache."
            )
            if store is not None:
                store.verify(parts)
                self._retry(store, parts)
            return store
        store = self._read()
        if store is None:
            return self._begin()
        self._verify(store, parts)
        return store

    def _begin(self) -> DiskStore:
        """A new entry in the place of what is unusable."""
        for old in self.directory.iterdir():
            if old.name != _LOCK:
                old.unlink()
        self._supersede()
        key = self._key
        header = {
            "name": key.name,
            "where": key.where,
            "asked": dict(key.asked),
            "made": dict(key.made),
            "rows": self._layout.num_rows,
            "block_rows": self._layout.block_rows,
        }
        write_json(self.directory / _HEADER, {**header, "checksum": _checksum(header)})
        return DiskStore(self.directory, self._layout, self._dtype)

    def _read(self) -> DiskStore | None:
        """The entry, unless it is new or its header is not what was written."""
        header = _header(self.directory)
        if header is None:
            return None
        if header.get("asked") != self._key.asked or header.get("made") != self._key.made:
            note = f"The cache of the features of {self._key.name} had a damaged header; they were computed again."
            if note not in self.notes:
                self.notes.append(note)
            return None
        return DiskStore(self.directory, Layout(self._layout.num_rows, header["block_rows"]), self._dtype)

    def _verify(self, store: DiskStore, parts: Sequence[str]) -> bool:
        """Whether anything was damaged; it is forgotten, and a note says so."""
        damaged = store.verify(parts)
        if damaged:
            what = ", ".join(f"{part}: {count} of {len(store.layout)} blocks" for part, count in damaged.items())
            note = f"Cached features of {self._key.name} were damaged ({what}); these were computed again."
            if note not in self.notes:
                self.notes.append(note)
        return self._retry(store, parts) or bool(damaged)

    def _retry(self, store: DiskStore, parts: Sequence[str]) -> bool:
        """Whether images that could not be read now can be; their blocks are forgotten, and a note says so."""
        mended = [row for row in store.bad(parts) if self._readable(row)]
        store.forget(mended)
        if mended:
            images = "An image" if len(mended) == 1 else f"{len(mended):,} images"
            note = f"{images} of {self._key.name} that could not be read before can be read now."
            self.notes += [note] if note not in self.notes else []
        return bool(mended)

    def _supersede(self) -> None:
        """Note which older entry was asked for in the same way, and remove it if its images are gone."""
        outdated: list[tuple[int, Path, str]] = []
        for entry in _entries(self.root):
            with contextlib.suppress(OSError):
                header = _header(entry) or {}
                why = self._key.outdated(header)
                if why is not None:
                    outdated.append((_used(entry), entry, why))
                    if header["made"].get("data") != self._key.made["data"]:
                        _remove(entry)
        if outdated and not self.notes:
            self.notes.append(max(outdated)[2])


def _header(entry: Path) -> dict[str, Any] | None:
    """The header; an empty one if it is damaged, None if there is none.

    Raises:
        OSError: It is there and cannot be read.
    """
    try:
        found = json.loads((entry / _HEADER).read_text())
        checksum = found.pop("checksum")
        return found if checksum == _checksum(found) else {}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, AttributeError, TypeError):
        return {}


def _checksum(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _entries(root: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(_TRASH)]
    return []


def _size(entry: Path) -> int:
    """Bytes on the disk; files may have holes."""
    total = 0
    with contextlib.suppress(OSError):
        for file in entry.iterdir():
            status = file.stat()
            total += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return total


def _used(entry: Path) -> int:
    with contextlib.suppress(OSError):
        return (entry / _HEADER).stat().st_mtime_ns
    return 0


def _remove(entry: Path) -> bool:
    """Remove an entry that nobody writes; what reads it can go on."""
    try:
        with FolderLock(entry / _LOCK):
            trash = entry.with_name(f"{_TRASH}{os.getpid()}-{entry.name}")
            entry.rename(trash)
    except (OSError, RunError):
        return False
    shutil.rmtree(trash, ignore_errors=True)
    return True
