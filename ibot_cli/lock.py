"""One user at a time per folder; a killed process never blocks the next one."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from ibot_cli.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_held: set[int] = set()


class FolderLock:
    """An exclusive lock on a file, held until `release` or until the process ends, however it ends.

    The kernel's `flock` decides; the pid and host inside the file are for people. Where the file system has no
    `flock` the file's existence is the lock, and it counts only while its process is alive.

    Args:
        path: The lock file. Its directory exists.

    Raises:
        RunError: Somebody else holds the lock; the message names the process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pid = os.getpid()
        self._exclusive_file = False
        self._descriptor = self._acquire()
        _held.add(self._descriptor)
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{self._pid} {socket.gethostname()}\n".encode())

    def release(self) -> None:
        """Give the lock back; calling it twice does no harm."""
        if self._descriptor < 0 or os.getpid() != self._pid:  # a forked child has nothing to give back
            return
        with contextlib.suppress(OSError):
            # The file stays under flock: removing it would let two processes lock two different files of one name.
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        _held.discard(self._descriptor)
        self._descriptor = -1
        if self._exclusive_file:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _acquire(self) -> int:
        if fcntl is None:
            return self._acquire_by_existence()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise self._busy() from None
        except OSError:  # a network file system without flock
            os.close(descriptor)
            with contextlib.suppress(OSError):
                if not self.path.read_text().strip():
                    self.path.unlink()
            return self._acquire_by_existence()
        return descriptor

    def _acquire_by_existence(self) -> int:
        self._exclusive_file = True
        for _ in range(2):
            try:
                return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                pid, host = self._owner()
                if host != socket.gethostname() or _alive(pid):
                    raise self._busy() from None
                self.path.unlink(missing_ok=True)
        raise self._busy()

    def _owner(self) -> tuple[int, str]:
        with contextlib.suppress(OSError, ValueError):
            pid, host = self.path.read_text().split()
            return int(pid), host
        return -1, "an unknown host"

    def _busy(self) -> RunError:
        pid, host = self._owner()
        return RunError(
            f"{self.path.parent} is in use by process {pid} on {host}.",
            f"Wait for it or stop it. If that process no longer exists, delete {self.path} and try again.",
        )


def _alive(pid: int) -> bool:
    """Whether process `pid` of this host exists; True where that cannot be known."""
    if os.name != "posix" or pid <= 0:  # os.kill ends the process on Windows
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _forget_in_child() -> None:
    """A forked loader worker must not keep the lock of a killed parent: flock lives as long as any copy is open."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
