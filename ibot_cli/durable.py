"""Files that are either complete or absent, also after a kill or a power cut."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY_SUFFIX = ".tmp"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    A temporary file in the same directory is written, synced and renamed over `path`; then the directory is synced,
    so that the rename itself survives a power cut. On an error the temporary file is removed and `path` is untouched.

    Args:
        path: The file to write; its directory exists.
        write: Writes the content to the open binary file it is given.

    Raises:
        OSError: The disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def rename(temporary: Path, final: Path) -> None:
    """Move the finished temporary file to its final name; the moment from which the new content counts."""
    temporary.replace(final)


def sync_directory(directory: Path) -> None:
    """Make renames and removals in `directory` durable, where the platform can."""
    with contextlib.suppress(OSError, AttributeError):  # Windows cannot open a directory
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_files(directory: Path) -> None:
    """Put everything in a directory on the disk, before it is renamed: the rename alone does not see to that."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
    sync_directory(directory)


def remove_leftovers(directory: Path) -> list[Path]:
    """Remove temporary files of killed processes; only the holder of the run's lock may call it.

    Returns:
        The files that were removed.
    """
    leftovers = sorted(directory.glob(f".*{TEMPORARY_SUFFIX}"))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return leftovers


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON, atomically; see `json_bytes`."""
    write_atomically(path, lambda file: file.write(json_bytes(content, indent=2) + b"\n"))


def append_json(path: Path, content: Mapping[str, Any]) -> None:
    """Add `content` as a line of JSON; see `json_bytes` and `append_line`."""
    append_line(path, json_bytes(content))


def json_bytes(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    """`content` as JSON in UTF-8; see `finite` for what happens to NaN.

    Bytes of a file name that are no UTF-8 (lone surrogates in Python) are escaped, and come back when it is read.
    """
    text = json.dumps(finite(content), indent=indent, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


def finite(value: Any) -> Any:
    """A copy of plain `value` that JSON can hold: NaN and infinities become None (`null`), tuples become lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return value


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, also while other processes do: one write under a lock, then on the disk.

    What a killed writer left half-written is removed first.

    Args:
        path: The file; it is made where there is none.
        line: Without a line break.

    Raises:
        OSError: The disk is full or not writable.
    """
    line += b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        with _locked(descriptor) as alone:
            size = os.fstat(descriptor).st_size
            if alone and size:
                _drop_half_line(descriptor, size)
            while line:  # one write, unless the system accepts only a part of it
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[bool]:
    """Whether the file is this process's alone; where the file system has no lock, one write has to do."""
    alone = False
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            alone = True
    try:
        yield alone
    finally:
        if alone:
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _drop_half_line(descriptor: int, size: int) -> None:
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    if os.read(descriptor, 1) == b"\n":
        return
    os.lseek(descriptor, 0, os.SEEK_SET)
    content = b""
    while part := os.read(descriptor, 1 << 20):
        content += part
    os.ftruncate(descriptor, content.rfind(b"\n") + 1)
