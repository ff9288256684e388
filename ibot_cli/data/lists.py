"""A text file with one image path per line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ibot_cli.data.decode import PixelFormat
from ibot_cli.data.files import FileSource
from ibot_cli.errors import DataError

HINT = "A list holds one image path per line, relative to the list or absolute; lines that start with # are skipped."


def open_list(path: Path, data: str, *, pixels: PixelFormat) -> FileSource:
    """Open a list of paths; files that are missing become unreadable images that name their line.

    Raises:
        DataError: Not text, no path in it, or none of the files exists.
    """
    entries = _entries(path, data)
    root = path.parent.resolve()
    if not any((root / entry).is_file() for _, entry in entries):
        line, first = entries[0]
        raise DataError(
            f"None of the {len(entries):,} files listed in {data} exists; the first is {root / first} (line {line}).",
            hint=HINT,
        )
    lines = np.array([line for line, _ in entries], dtype=np.int64)
    return FileSource(name=data, root=root, names=[entry for _, entry in entries], pixels=pixels, lines=lines)


def _entries(path: Path, data: str) -> list[tuple[int, str]]:
    """(line number, path) of every line that holds a path."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{data} cannot be read: {error.strerror or error}.", hint=HINT) from error
    if b"\0" in content[:65536]:
        raise DataError(f"{data} is neither a folder nor a text file of paths.", hint=HINT)
    text = content.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    entries = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not entries:
        raise DataError(f"{data} lists no path.", hint=HINT)
    return entries
