"""Image files by index, and what identifies a set of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from ibot_cli.data.decode import PixelFormat, read_content
from ibot_cli.data.encoded import EncodedSource
from ibot_cli.data.picture import Encoded
from ibot_cli.data.scan import NameTable
from ibot_cli.errors import DataError

Split = Literal["all", "train", "test"]


class FileSource(EncodedSource):
    """Image files under a root.

    Args:
        name: What people call it.
        root: Folder that the names are relative to.
        names: File names; absolute ones are taken as they are.
        pixels: What the images become.
        labels: int64 `[n]` or None.
        classes: Class names or None.
        notes: Sentences for the user.
        lines: Line of each name in a list file, or None.
    """

    def __init__(
        self,
        *,
        name: str,
        root: Path,
        names: Iterable[str],
        pixels: PixelFormat,
        labels: np.ndarray | None = None,
        classes: list[str] | None = None,
        notes: Sequence[str] = (),
        lines: np.ndarray | None = None,
    ) -> None:
        super().__init__(pixels)
        self.name = name
        self.labels = labels
        self.classes = classes
        self.notes = list(notes)
        self._root = root
        self._names = NameTable(names)
        self._lines = lines

    def __len__(self) -> int:
        return len(self._names)

    def encoded(self, index: int) -> Encoded:
        """The stored file; see `Source`."""
        file = self._file(index)
        return Encoded(read_content(file, self.place(index)), file.suffix.removeprefix(".").lower())

    def place(self, index: int) -> str:
        """The file, with its line in the list that named it."""
        return f"{self.path(index)} (line {self._lines[index]})" if self._lines is not None else self.path(index)

    def path(self, index: int) -> str:
        """The file, with bytes that are not UTF-8 replaced."""
        return str(self._file(index)).encode(errors="surrogateescape").decode(errors="replace")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over relative names, sizes and modification times; asks the file system once per file."""
        root = str(self._root)
        names, sizes, mtimes = [], [], []
        for index in range(len(self)):
            name = self._names[index].removeprefix(f"{root}/")
            names.append(name)
            try:
                status = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118  # Path objects take ten times as long
                sizes.append(status.st_size)
                mtimes.append(status.st_mtime_ns)
            except OSError:
                sizes.append(-1)
                mtimes.append(-1)
        return data_fingerprint(names, sizes, mtimes)

    def _file(self, index: int) -> Path:
        return self._root / self._names[index]


def data_fingerprint(paths: Sequence[str], sizes: Sequence[int], mtimes: Sequence[int]) -> str:
    """What identifies a set of files wherever it lies.

    Args:
        paths: Relative to the data's root, with `/`.
        sizes: Bytes.
        mtimes: Modification times in nanoseconds.

    Returns:
        SHA-256 in hex over the entries, sorted by path.
    """
    digest = hashlib.sha256()
    for path, size, mtime in sorted(zip(paths, sizes, mtimes, strict=True)):
        digest.update(f"{path}\0{size}\0{mtime}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


class NoTestPart(DataError):
    """The data do not say which images are for testing."""


def no_test_split(data: str) -> NoTestPart:
    """The error for data that do not say which images are for testing."""
    return NoTestPart(f"{data} has no test part.", hint="Put the test images into val/ beside train/.")
