"""Many file names in a few bytes each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.indexing.shared_buffer import SharedBuffer

_CHUNK = 65536


class NameTable:
    """Many strings in two flat buffers: a list of a million strings is copied into every worker by reference counts.

    Args:
        names: File names; any bytes that a file system allows.

    Raises:
        ValueError: A name holds a zero byte.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = names if isinstance(names, list) else list(names)
        blob = b"".join([os.fsencode("\0".join(names)), b"\0" * bool(names)])
        self._set(SharedBuffer(blob + b"\0" * (-len(blob) % 8) + _ends(blob, len(names)).tobytes()), len(blob))

    @classmethod
    def of(cls, blob: NDArray[np.uint8]) -> NameTable:
        """The names of another table's `blob`.

        Raises:
            ValueError: It is none.
        """
        table, content = cls.__new__(cls), blob.tobytes()
        ends = _ends(content, content.count(b"\0"))
        table._set(SharedBuffer(content + b"\0" * (-len(content) % 8) + ends.tobytes()), len(content))
        return table

    def _set(self, buffer: SharedBuffer, size: int) -> None:
        self._buffer, self._size = buffer, size
        self._blob = buffer.view[:size]
        self._ends = np.frombuffer(buffer.view, dtype=np.int64, offset=size + -size % 8)

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self._buffer, self._size)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.fsdecode(bytes(self._blob[self._ends[index] : self._ends[index + 1] - 1]))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            yield from self.some(start, start + _CHUNK)

    def some(self, start: int, stop: int) -> list[str]:
        """The names of a range of indices; much faster than one by one."""
        stop = min(stop, len(self))
        if start >= stop:
            return []
        return os.fsdecode(bytes(self._blob[self._ends[start] : self._ends[stop] - 1])).split("\0")

    @property
    def blob(self) -> NDArray[np.uint8]:
        """All names as stored, each followed by a zero byte."""
        return np.frombuffer(self._blob, dtype=np.uint8)


def _restored(buffer: SharedBuffer, size: int) -> NameTable:
    table = NameTable.__new__(NameTable)
    table._set(buffer, size)
    return table


def _ends(blob: bytes, count: int) -> NDArray[np.int64]:
    """Where each name begins, and where the last one ends; int64 `[count + 1]`."""
    zeros = np.flatnonzero(np.frombuffer(blob, dtype=np.uint8) == 0)
    if len(zeros) != count or (count and zeros[-1] != len(blob) - 1):
        raise ValueError("a name holds a zero byte")
    return np.concatenate([[0], zeros + 1]).astype(np.int64)
