"""Files that are read at any place, from any process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MOST_OPEN = 256
SHARE = 4


class RandomFile:
    """An open file without a position: processes and threads that share it do not disturb each other.

    It is closed when nobody holds it any more.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._number = -1
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._alone = threading.Lock()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound: `os` may be gone when the program ends
        if self._number >= 0:
            close(self._number)

    def read(self, size: int, offset: int) -> bytes:
        """`size` bytes from `offset`; fewer where the file ends before."""
        if hasattr(os, "pread"):
            return os.pread(self._number, size, offset)
        with self._alone:
            os.lseek(self._number, offset, os.SEEK_SET)
            return os.read(self._number, size)

    def state(self) -> tuple[int, int]:
        """Size in bytes and modification time in nanoseconds."""
        status = os.fstat(self._number)
        return status.st_size, status.st_mtime_ns


class OpenFiles:
    """The files in use, the one that was longest not used closed first when there are many.

    Copies in other processes open their own.
    """

    def __init__(self) -> None:
        self._files: dict[str, RandomFile] = {}
        self._most = _most_open()

    def __reduce__(self) -> tuple[type[OpenFiles], tuple[()]]:
        return OpenFiles, ()

    def get(self, path: str) -> RandomFile:
        """The open file.

        Raises:
            OSError: It cannot be opened.
        """
        file = self._files.pop(path, None) or RandomFile(path)
        self._files[path] = file
        while len(self._files) > self._most:
            self._files.pop(next(iter(self._files)), None)
        return file

    def __len__(self) -> int:
        return len(self._files)


def _most_open() -> int:
    """A share of what the process may open: loader workers need descriptors for the batches that they send."""
    if resource is None:
        return MOST_OPEN
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN if soft < 0 else max(1, min(soft // SHARE, MOST_OPEN))
