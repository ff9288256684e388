"""The store of one feature pass, for one process or several, with or without a cache that may fail at any time."""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ibot_cli import distributed
from ibot_cli.evaluate.feature_cache.cache import FeatureCache
from ibot_cli.evaluate.feature_cache.entry import DiskStore
from ibot_cli.evaluate.feature_cache.store import Block, Layout, MemoryStore, Store, missing

_CPU = torch.device("cpu")
_TOKEN = "session"


class SharedStore:
    """Takes the blocks that this process computes; in the end every process has them all.

    The first process opens the cache and deals out what is missing. Where a process cannot write to the cache, or does
    not see the directory of the first, the features stay in memory and are exchanged.

    Args:
        cache: The entry to use in the first process, else None.
        layout: How rows are cut into blocks, unless the entry has its own way.
        dtype: Of the features.
        parts: What is wanted.

    Attributes:
        layout: How rows are cut into blocks.
        todo: Block -> the parts that any process has to compute.
        work: Of these, what this process has to compute.
        notes: What happened that the user should know, as sentences.
    """

    def __init__(self, cache: FeatureCache | None, layout: Layout, dtype: torch.dtype, parts: Sequence[str]) -> None:
        self._cache, self._parts, self._dtype = cache, parts, dtype
        self._notes: list[str] = []
        self._disk_full = False
        store = self._opened(layout)
        disk = store if isinstance(store, DiskStore) else None
        shared = missing(store, parts), store.layout, disk and disk.directory, self._leave_token(disk)
        self.todo: Mapping[int, Sequence[str]]
        self.todo, self.layout, directory, token = distributed.agree(shared)
        if distributed.rank() > 0:
            store = MemoryStore(self.layout, dtype)
            if directory is not None:
                store = DiskStore(directory, self.layout, dtype, distributed.rank())
        self._store: Store = store
        share = np.array_split(np.array(sorted(self.todo)), distributed.world())[distributed.rank()]
        self.work = {int(block): self.todo[int(block)] for block in share}
        if directory is not None and distributed.any_rank(not self._sees_the_same(token), _CPU):
            self._notes.append("The processes do not share a cache directory, so the features stayed in memory.")
            self._use_memory()

    def write(self, block: Block) -> None:
        """Take a block of `work`."""
        try:
            self._store.write(block)
        except OSError as error:
            reason = error.strerror or str(error)
            self._disk_full |= error.errno in (errno.ENOSPC, errno.EDQUOT)
            self._notes.append(f"The features could not be written to the cache and were not kept: {reason}.")
            self._use_memory()
            self._store.write(block)

    def finish(self) -> Store:
        """Everything that was wanted; all processes call it once their work is done."""
        if distributed.world() == 1 or self._all_on_disk():
            return self._store
        everything = MemoryStore.holding(self._store, self._own(), self._dtype)
        everything.exchange()
        self._store = everything
        return everything

    def settle(self, limit: int) -> tuple[str, ...]:
        """Cut the cache to `limit` bytes; all processes call it once they have opened what `finish` gave.

        On a full disk the entry is removed: it must not be the cache that keeps the disk full.

        Returns:
            What happened that the user should know, as sentences.
        """
        full = distributed.any_rank(self._disk_full, _CPU)  # by now all have opened the files that may be removed
        self.close()
        if self._cache is not None:
            if full:
                self._cache.discard()
            elif self.todo:
                self._cache.trim(limit)
            self._notes = [*self._cache.notes, *self._notes]
        return tuple(distributed.merged(dict.fromkeys(self._notes, "")))

    def close(self) -> None:
        """Let others write to the cache."""
        if self._cache is not None:
            self._cache.release()

    def _opened(self, layout: Layout) -> DiskStore | MemoryStore:
        """What the first process begins with."""
        entry = None if self._cache is None else self._cache.open(self._parts)
        if entry is None or self._cache is None:
            return MemoryStore(layout, self._dtype)
        if self._cache.writable or not missing(entry, self._parts):
            return entry
        everything = dict.fromkeys(range(len(entry.layout)), self._parts)
        return MemoryStore.holding(entry, everything, self._dtype)

    def _all_on_disk(self) -> bool:
        if distributed.any_rank(not isinstance(self._store, DiskStore), _CPU):
            return False
        assert isinstance(self._store, DiskStore)
        self._store.reload()
        return not distributed.any_rank(bool(missing(self._store, self._parts)), _CPU)

    def _use_memory(self) -> None:
        """Go on in memory, with what is there of this process's contribution."""
        self._store = MemoryStore.holding(self._store, self._own(), self._dtype)

    def _own(self) -> dict[int, Sequence[str]]:
        """What this process contributes to an exchange: its work, and the first one what was there before."""
        if distributed.rank() > 0:
            return dict(self.work)
        own: dict[int, Sequence[str]] = {}
        for block in range(len(self.layout)):
            before = [part for part in self._parts if part not in self.todo.get(block, ())]
            own[block] = [*before, *self.work.get(block, ())]
        return own

    def _leave_token(self, entry: DiskStore | None) -> str | None:
        """Something that only processes with the same directory can read, if there is anything to write."""
        if entry is None or self._cache is None or not self._cache.writable or distributed.world() == 1:
            return None
        token = secrets.token_hex(8)
        with contextlib.suppress(OSError):
            (entry.directory / _TOKEN).write_text(token)
        return token

    def _sees_the_same(self, token: str | None) -> bool:
        """Whether this process sees what the first one has: a fresh token, or complete and intact rows."""
        if distributed.rank() == 0 or not isinstance(self._store, DiskStore):
            return True
        if token is None:
            self._store.verify(self._parts)
            return not missing(self._store, self._parts)
        with contextlib.suppress(OSError):
            return (self._store.directory / _TOKEN).read_text() == token
        return False
