"""A CSV file that lists images: `path`, and `label` and `split` where it has them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.decode import PixelFormat
from ibot_cli.data.files import FileSource, Split, no_test_split
from ibot_cli.data.folders import CHOSEN, TESTS, TRAIN
from ibot_cli.data.indexing.name_table import NameTable
from ibot_cli.data.lists import check_some_exist, repeated
from ibot_cli.data.scan import EXTENSIONS, natural_order
from ibot_cli.errors import DataError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
PATHS = ("path", "file", "filename", "file_name", "image")
LABELS = ("label", "class")
SPLITS = ("split",)
HINT = (
    "A CSV file of images begins with a line of column names, such as path,label: path is an image file, relative to "
    "the CSV file or absolute; label, a name or a number, is optional, and so is split (train, val or test)."
)
QUOTES = "Put a path or label with a comma in it between quotation marks."


@dataclass(frozen=True)
class Table:
    """The lines of a CSV file that list an image.

    Attributes:
        names: The files, n of them.
        lines: Where each is, int64 `[n]`.
        labels: int64 `[n]`, or None.
        classes: Names of the classes in natural order, or None.
        splits: For each image a place in `parts`, int64 `[n]`; or None without such a column.
        parts: The splits that occur, the one for training first; none without such a column.
        unused: Other columns.
    """

    names: NameTable
    lines: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    classes: list[str] | None
    splits: NDArray[np.int64] | None
    parts: list[str]
    unused: list[str]


def is_csv(path: Path) -> bool:
    """Whether a file is a table of images, by its ending."""
    return path.suffix.lower() in SEPARATORS


def open_csv(path: Path, data: str, *, pixels: PixelFormat, split: Split) -> FileSource:
    """Open a CSV file; files that are missing become unreadable images that name their line.

    Args:
        path: The file, `.csv` or `.tsv`.
        data: As the user named it.
        pixels: What the images become.
        split: Which part, where it has a column `split`; without one, all images are `train`.

    Raises:
        DataError: Not such a table, a line of it is wrong, none of the files exists, or the part is not there.
    """
    table = read_table(path, data)
    chosen = _chosen(table, split, data)
    names, lines, labels = table.names, table.lines, table.labels
    notes = repeated(names) + ([f"Columns not used: {', '.join(table.unused)}."] if table.unused else [])
    if chosen != table.parts:
        assert table.splits is not None  # or there are no parts
        wanted = np.isin(table.splits, [table.parts.index(part) for part in chosen])
        names, lines = NameTable(compress(names, wanted)), lines[wanted]
        labels = None if labels is None else labels[wanted]
        rest = ", ".join(part for part in table.parts if part not in chosen)
        notes.insert(0, f"{CHOSEN}lines with split {', '.join(chosen)}; {rest} not used.")
    root = path.parent.resolve()
    check_some_exist(root, names, lines, data, HINT)
    return FileSource(
        name=f"{data} ({', '.join(chosen)})" if table.parts else data,
        root=root,
        names=names,
        pixels=pixels,
        labels=labels,
        classes=table.classes,
        notes=notes,
        lines=lines,
    )


def csv_parts(path: Path, data: str) -> list[str]:
    """The values of the column `split`, the one for training first; none without such a column or without `train`.

    Raises:
        DataError: As `open_csv`.
    """
    parts = read_table(path, data).parts
    return parts if parts[:1] == [TRAIN] else []


def csv_part_of_each(path: Path, data: str) -> list[str]:
    """For each image the value of its column `split`, which must be there.

    Raises:
        DataError: As `open_csv`.
    """
    table = read_table(path, data)
    assert table.splits is not None
    return [table.parts[place] for place in table.splits]


def read_table(path: Path, data: str) -> Table:
    """All that a CSV file says.

    Raises:
        DataError: Not such a table, or a line of it is wrong.
    """
    try:
        status = path.stat()
        return _read(path, data, (status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise DataError(f"{data} cannot be read: {error.strerror or error}.", hint=HINT) from error


@lru_cache(maxsize=1)  # the parts of one table are opened one after the other
def _read(path: Path, data: str, state: tuple[int, int]) -> Table:
    content = path.read_bytes()
    if b"\0" in content:
        raise DataError(f"{data} is not a text file in UTF-8.", hint="Save it as CSV in UTF-8. " + HINT)
    text = content.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    rows = _rows(text, _separator(path, text), data)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{data} is empty.", hint=HINT)
    columns, headless = _columns(first[1], data)
    cells = _Cells(columns, data)
    if headless:
        cells.add(*first)
    for line, row in rows:
        cells.add(line, row)
    return cells.table()


def _separator(path: Path, text: str) -> str:
    """What stands between the cells: some spreadsheets write semicolons in place of commas."""
    first = text.lstrip().partition("\n")[0]
    stated = SEPARATORS[path.suffix.lower()]
    return ";" if ";" in first and stated not in first else stated


def _rows(text: str, separator: str, data: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        for row in reader:
            if any(cells := [cell.strip() for cell in row]):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{data}, line {reader.line_num}: {error}.", hint=HINT) from error


def _columns(first: Sequence[str], data: str) -> tuple[list[str], bool]:
    """The names of the columns, and whether the first line is an image already."""
    if first[0].rpartition(".")[2].lower() in EXTENSIONS:
        if len(first) > 2:
            raise DataError(f"{data} has {len(first)} columns and no line of column names.", hint=HINT)
        return [PATHS[0], LABELS[0]][: len(first)], True
    columns = [name.lower() for name in first]
    if not set(columns) & set(PATHS):
        raise DataError(f"{data} has no column `path`; its columns are {', '.join(first)}.", hint=HINT)
    twice = [name for name in columns if name in (*PATHS, *LABELS, *SPLITS) and columns.count(name) > 1]
    if twice:
        raise DataError(f"{data} has the column `{twice[0]}` twice.", hint=HINT)
    return columns, False


class _Cells:
    """Collects the lines of a table."""

    def __init__(self, columns: list[str], data: str) -> None:
        self._data, self._columns = data, columns
        path, self._label, self._split = (_place(columns, names) for names in (PATHS, LABELS, SPLITS))
        assert path is not None  # checked with the column names
        self._path = path
        self._needed = max(place for place in (path, self._label, self._split) if place is not None) + 1
        self._lines: list[int] = []
        self._names: list[str] = []
        self._labels: list[str] = []
        self._splits: list[str] = []

    def add(self, line: int, row: list[str]) -> None:
        if not self._needed <= len(row) <= len(self._columns):
            self._refuse(line, f"{len(row)} cells where there are {len(self._columns)} columns", QUOTES)
        if not row[self._path]:
            self._refuse(line, "no path")
        self._lines.append(line)
        self._names.append(row[self._path])
        if self._label is not None:
            self._labels.append(row[self._label])
        if self._split is not None:
            split = row[self._split].lower()
            if split not in (TRAIN, *TESTS):
                what = f"the split `{row[self._split]}`" if split else "no split"
                self._refuse(line, what, f"Splits are {', '.join((TRAIN, *TESTS))}.")
            self._splits.append(split)

    def table(self) -> Table:
        if not self._names:
            raise DataError(f"{self._data} lists no image, only column names.", hint=HINT)
        labels, classes = self._numbered()
        parts = [part for part in (TRAIN, *TESTS) if part in set(self._splits)]
        number = {part: place for place, part in enumerate(parts)}
        return Table(
            names=NameTable(self._names),
            lines=np.array(self._lines, dtype=np.int64),
            labels=labels,
            classes=classes,
            splits=np.array([number[split] for split in self._splits], dtype=np.int64) if parts else None,
            parts=parts,
            unused=[
                name
                for place, name in enumerate(self._columns)
                if name and place not in (self._path, self._label, self._split)
            ],
        )

    def _numbered(self) -> tuple[NDArray[np.int64] | None, list[str] | None]:
        """Labels and classes; as with folders, one class alone is none."""
        classes = natural_order(list(set(self._labels)))
        if classes and classes[0] == "" and len(classes) > 1:
            place = self._labels.index("")
            self._refuse(self._lines[place], "no label", "Give every image a label, or leave the column out.")
        if len(classes) < 2:
            return None, None
        number = {name: index for index, name in enumerate(classes)}
        return np.array([number[name] for name in self._labels], dtype=np.int64), classes

    def _refuse(self, line: int, what: str, hint: str = HINT) -> NoReturn:
        raise DataError(f"{self._data}, line {line}, has {what}.", hint=hint)


def _place(columns: Sequence[str], names: Sequence[str]) -> int | None:
    """The column of the first of these names that is there."""
    return next((columns.index(name) for name in names if name in columns), None)


def _chosen(table: Table, split: Split, data: str) -> list[str]:
    """The parts to use, out of the table's."""
    if split == "test":
        if table.parts[:1] != [TRAIN] or len(table.parts) < 2:
            raise no_test_split(data, "Give it a column `split` that says train or val for each image.")
        return table.parts[1:2]
    if split == "train" and table.parts:
        if TRAIN not in table.parts:
            raise DataError(f"{data} has no line with the split train, only {', '.join(table.parts)}.", hint=HINT)
        return [TRAIN]
    return table.parts
