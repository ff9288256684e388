"""A text file with one image path per line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.decode import PixelFormat
from ibot_cli.data.files import FileSource
from ibot_cli.data.indexing.name_table import NameTable
from ibot_cli.data.shards.member import is_member
from ibot_cli.errors import DataError

HINT = (
    "A list holds one image path per line, relative to the list or absolute; lines that start with # are skipped. "
    "Labels need a .csv file with the columns path,label."
)


def open_list(path: Path, data: str, *, pixels: PixelFormat) -> FileSource:
    """Open a list of paths; files that are missing become unreadable images that name their line.

    Raises:
        DataError: Not text, no path in it, or none of the files exists.
    """
    entries = _entries(path, data)
    root = path.parent.resolve()
    names = NameTable([entry for _, entry in entries])
    lines = np.array([line for line, _ in entries], dtype=np.int64)
    check_some_exist(root, names, lines, data, HINT)
    return FileSource(name=data, root=root, names=names, pixels=pixels, notes=repeated(names), lines=lines)


def repeated(names: NameTable) -> list[str]:
    """A sentence about names that come more than once, if there are any."""
    count = len(names) - len(set(names))
    if not count:
        return []
    which = "1 line names a file" if count == 1 else f"{count:,} lines name a file"
    return [f"{which} that an earlier line names too; it counts each time."]


def check_some_exist(root: Path, names: NameTable, lines: NDArray[np.int64], data: str, hint: str) -> None:
    """A list of which no file exists was not meant so.

    Args:
        root: Folder that the names are relative to.
        names: What is listed.
        lines: Where, int64 `[n]`.
        data: As the user named the list.
        hint: What a list looks like.

    Raises:
        DataError: None of the files exists.
    """
    files = (os.path.join(root, name) for name in names)  # noqa: PTH118  # Path objects take ten times as long
    if any(os.path.isfile(file) or is_member(file) for file in files):  # noqa: PTH113
        return
    raise DataError(
        f"None of the {len(names):,} files listed in {data} exists; the first is {root / names[0]} (line {lines[0]}).",
        hint=hint,
    )


def _entries(path: Path, data: str) -> Sequence[tuple[int, str]]:
    """(line number, path) of every line that holds a path."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{data} cannot be read: {error.strerror or error}.", hint=HINT) from error
    if b"\0" in content:
        raise DataError(f"{data} is neither a folder nor a text file of paths.", hint=HINT)
    text = content.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    entries = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not entries:
        raise DataError(f"{data} lists no path.", hint=HINT)
    return entries
