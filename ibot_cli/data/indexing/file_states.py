"""Sizes and modification times of many files."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.indexing.name_table import NameTable
from ibot_cli.data.indexing.shared_buffer import SharedBuffer
from ibot_cli.data.shards.member import tar_of

MISSING = -1
COARSE = 2 * 10**9  # nanoseconds; what changes twice within them can keep its modification time, on coarse file systems
_CHUNK = 4096
_FIRST = 256
_SLOW = 5e-5  # seconds per file above which the system waits for a disk or a network, so that threads pay
_THREADS = 16


class FileStates:
    """What shows that files changed; worker processes share it.

    Args:
        sizes: Bytes, int64 `[n]`; `MISSING` for files that are not there.
        mtimes: Modification times in nanoseconds, int64 `[n]`; `MISSING` likewise.
        taken: Since when the files were asked, nanoseconds.
    """

    def __init__(self, sizes: NDArray[np.int64], mtimes: NDArray[np.int64], taken: int) -> None:
        self._set(SharedBuffer(sizes.tobytes() + mtimes.tobytes()), taken)

    def _set(self, buffer: SharedBuffer, taken: int) -> None:
        self._buffer = buffer
        self.taken = taken
        self.sizes, self.mtimes = np.frombuffer(buffer.view, dtype=np.int64).reshape(2, -1)

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self._buffer, self.taken)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileStates):
            return NotImplemented
        return np.array_equal(self.sizes, other.sizes) and np.array_equal(self.mtimes, other.mtimes)

    __hash__ = None  # type: ignore[assignment]  # as arrays have none

    def __getitem__(self, index: int) -> tuple[int, int]:
        return int(self.sizes[index]), int(self.mtimes[index])

    @property
    def settled(self) -> bool:
        """Whether a change since would show: no file had just been written."""
        return not len(self.mtimes) or int(self.mtimes.max()) < self.taken - COARSE


def file_state(path: str) -> tuple[int, int]:
    """Size and modification time of one file, of the tar file for one in it; both `MISSING` where it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116  # Path objects take ten times as long
    except NotADirectoryError:
        tar = tar_of(path)
        return (MISSING, MISSING) if tar is None else file_state(tar)
    except (OSError, ValueError):
        return MISSING, MISSING
    return status.st_size, status.st_mtime_ns


def stat_files(root: Path, names: NameTable) -> FileStates:
    """Ask the file system once per file; side by side where it takes its time to answer.

    Args:
        root: Folder that the names are relative to.
        names: n file names; absolute ones are taken as they are.
    """

    def ask(begin: int) -> NDArray[np.int64]:
        pairs = [file_state(os.path.join(folder, name)) for name in names.some(begin, begin + _CHUNK)]  # noqa: PTH118
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    folder, taken = str(root), time.time_ns()
    begins = range(0, len(names), _CHUNK)
    if len(names) > _CHUNK and _seconds_per_file(folder, names) > _SLOW:
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(ask, begins))
    else:
        found = [ask(begin) for begin in begins]
    both = np.concatenate([np.empty((0, 2), np.int64), *found]).T.copy()
    return FileStates(both[0], both[1], taken)


def states_fingerprint(root: Path, names: NameTable, states: FileStates) -> str:
    """`data_fingerprint` of files under a root, which absolute names may state too."""
    prefix = f"{root}/"
    return data_fingerprint([name.removeprefix(prefix) for name in names], states.sizes, states.mtimes)


def data_fingerprint(
    paths: Sequence[str], sizes: Sequence[int] | NDArray[np.int64], mtimes: Sequence[int] | NDArray[np.int64]
) -> str:
    """What identifies a set of files wherever it lies.

    Args:
        paths: Relative to the data's root, with `/`.
        sizes: Bytes.
        mtimes: Modification times in nanoseconds.

    Returns:
        SHA-256 in hex over the entries, sorted by path.
    """
    digest = hashlib.sha256()
    for lines in _lines(paths, np.asarray(sizes), np.asarray(mtimes)):
        digest.update("".join(lines).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _lines(paths: Sequence[str], sizes: NDArray[np.int64], mtimes: NDArray[np.int64]) -> Iterator[list[str]]:
    """The entries in order, many at a time."""
    order = np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=np.int64)
    for begin in range(0, len(order), _CHUNK):
        some = order[begin : begin + _CHUNK]
        entries = zip(some.tolist(), sizes[some].tolist(), mtimes[some].tolist(), strict=True)
        yield [f"{paths[index]}\0{size}\0{mtime}\n" for index, size, mtime in entries]


def _seconds_per_file(folder: str, names: NameTable) -> float:
    """How long the file system takes to answer, from a few names all over the table."""
    some = range(0, len(names), max(1, len(names) // _FIRST))
    began = time.perf_counter()
    for index in some:
        file_state(os.path.join(folder, names[index]))  # noqa: PTH118
    return (time.perf_counter() - began) / len(some)


def _restored(buffer: SharedBuffer, taken: int) -> FileStates:
    states = FileStates.__new__(FileStates)
    states._set(buffer, taken)
    return states
