"""Image files by index, and what identifies a set of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from ibot_cli.data.decode import PixelFormat, UnreadableImage, read_content
from ibot_cli.data.encoded import EncodedSource
from ibot_cli.data.indexing.file_states import FileStates, file_state, stat_files, states_fingerprint
from ibot_cli.data.indexing.folder_index import FolderIndex
from ibot_cli.data.indexing.name_table import NameTable
from ibot_cli.data.picture import Encoded
from ibot_cli.errors import DataError

Split = Literal["all", "train", "test"]
MANY = 100_000
SOME = 1000
CHANGED = "it changed since the images were listed; start again to use it as it is now"


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
        index: Where the names come from, if all of one; keeps what the files are.
    """

    def __init__(
        self,
        *,
        name: str,
        root: Path,
        names: Iterable[str] | NameTable,
        pixels: PixelFormat,
        labels: np.ndarray | None = None,
        classes: list[str] | None = None,
        notes: Sequence[str] = (),
        lines: np.ndarray | None = None,
        index: FolderIndex | None = None,
    ) -> None:
        super().__init__(pixels)
        self.name = name
        self.labels = labels
        self.classes = classes
        self.notes = list(notes)
        self._root = root
        self._names = names if isinstance(names, NameTable) else NameTable(names)
        self._lines = lines
        self._index = index
        self._states: FileStates | None = None

    def __len__(self) -> int:
        return len(self._names)

    def encoded(self, index: int) -> Encoded:
        """The stored file; see `Source`."""
        file = self._file(index)
        content = read_content(file, self.place(index))
        self._check(index, str(file))
        return Encoded(content, file.suffix.removeprefix(".").lower())

    def place(self, index: int) -> str:
        """The file, with its line in the list that named it."""
        return f"{self.path(index)} (line {self._lines[index]})" if self._lines is not None else self.path(index)

    def path(self, index: int) -> str:
        """The file, with bytes that are not UTF-8 replaced."""
        return str(self._file(index)).encode(errors="surrogateescape").decode(errors="replace")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over relative names, sizes and modification times; asks the file system once per file.

        From then on a file that is not as it was then is unreadable: what is computed from the images would not be
        that of the images with this fingerprint.
        """
        states = stat_files(self._root, self._names)
        known = None if self._index is None else self._index.states
        if known is not None and known[0] == states:
            self._states = known[0]
            return known[1]
        self._states = states
        fingerprint = states_fingerprint(self._root, self._names, states)
        if self._index is not None:
            self._index.remember(states, fingerprint)
        return fingerprint

    @property
    def known_fingerprint(self) -> str:
        """The fingerprint as somebody found it before, if the folders did not change since; else `fingerprint`.

        Of more than `MANY` files it asks for a thousand only: a million of them take long on a slow disk. So where few
        files changed in place, it may be the fingerprint of the files as they were. What makes that safe for those who
        read the images that they use: a file that changed is unreadable from then on, and the next start asks for all.
        """
        known = None if self._index is None else self._index.states
        if known is None or "fingerprint" in self.__dict__ or not self._as_known(known[0]):
            return self.fingerprint
        self._states = known[0]
        return known[1]

    def _as_known(self, states: FileStates) -> bool:
        """Whether a thousand files all over the data are as they were; False where asking for all is quick."""
        if len(self) <= MANY:
            return False
        some = range(0, len(self), len(self) // SOME)
        return all(file_state(str(self._file(index))) == states[index] for index in some)

    def _check(self, index: int, file: str) -> None:
        """Raise if the file is not what the fingerprint was made from."""
        if self._states is None or file_state(file) == self._states[index]:
            return
        if self._index is not None:
            self._index.forget()
        raise UnreadableImage(self.place(index), CHANGED)

    def _file(self, index: int) -> Path:
        return self._root / self._names[index]


class NoTestPart(DataError):
    """The data do not say which images are for testing."""


def no_test_split(data: str, hint: str = "Put the test images into val/ beside train/.") -> NoTestPart:
    """The error for data that do not say which images are for testing."""
    return NoTestPart(f"{data} has no test part.", hint=hint)
