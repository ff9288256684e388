"""Files that are either complete or absent, also after a kill or a power cut."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

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
    """Write `content` as indented JSON, atomically; see `finite` for what happens to NaN."""
    text = json.dumps(finite(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def finite(value: Any) -> Any:
    """A copy of plain `value` that JSON can hold: NaN and infinities become None (`null`), tuples become lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return value
