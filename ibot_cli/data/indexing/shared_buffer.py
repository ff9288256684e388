"""Bytes that worker processes share instead of copying them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable


class SharedBuffer:
    """Read-only bytes in memory that all processes see, also those that are not forked.

    Where the system has anonymous files, sending the buffer to another process sends where they are: the buffer is
    never copied and takes no room in /dev/shm, which is small in containers. A file that is mapped from the cache
    would do as well, but on a network file system it can be replaced from another machine, which kills its readers.
    Elsewhere the bytes are sent.

    Args:
        content: The bytes.
    """

    def __init__(self, content: bytes) -> None:
        self._descriptor, self._bytes = -1, b""
        try:
            self._descriptor = os.memfd_create("ibot")
            os.posix_fallocate(self._descriptor, 0, len(content))  # here rather than as a signal while it is filled
            self._map(len(content))[:] = content
        except (AttributeError, OSError, ValueError):  # no such system call, no memory, nothing to map
            self._close()
            self._bytes = content
            self.view = memoryview(content)

    def __len__(self) -> int:
        return len(self.view)

    def __reduce__(self) -> tuple[object, ...]:
        if self._descriptor < 0:
            return SharedBuffer, (self._bytes,)
        return _attach, (f"/proc/{os.getpid()}/fd/{self._descriptor}", len(self))

    def __del__(self) -> None:
        self._close()

    def _map(self, size: int) -> memoryview:
        """Map the open file; gives a writable view, while `view` is read-only."""
        writable = memoryview(mmap.mmap(self._descriptor, size))
        self.view = writable.toreadonly()
        return writable

    def _close(self, close: Callable[[int], None] = os.close) -> None:
        if self._descriptor >= 0:
            close(self._descriptor)  # an argument: at the end of the interpreter `os` may be gone
            self._descriptor = -1


def _attach(path: str, size: int) -> SharedBuffer:
    """The buffer of another process, by the file that it holds open."""
    buffer = SharedBuffer(b"")
    buffer._descriptor = os.open(path, os.O_RDWR)
    buffer._map(size)
    return buffer
