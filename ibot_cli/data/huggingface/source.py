"""Images of a Hugging Face data set by index, decoded from the bytes that are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.decode import PixelFormat, UnreadableImage, read_content
from ibot_cli.data.encoded import EncodedSource
from ibot_cli.data.files import Split, no_test_split
from ibot_cli.data.folders import CHOSEN
from ibot_cli.data.huggingface.address import Address, parse_address
from ibot_cli.data.huggingface.columns import class_numbers, image_column, label_column
from ibot_cli.data.huggingface.loading import Tables, import_datasets, load_tables
from ibot_cli.data.picture import Encoded
from ibot_cli.errors import DataError

TRAIN = "train"
TESTS = ("validation", "val", "valid", "dev", "test")
MAGIC = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
}


class HuggingFaceSource(EncodedSource):
    """Images in the columns of tables; the tables are mapped into memory, so that workers share them.

    Args:
        name: What people call it.
        shown: The data set, for messages.
        parts: Split name and table (`datasets.Dataset`) of each part, in order.
        column: The column with the images.
        pixels: What the images become.
        labels: int64 `[n]` or None.
        classes: Class names or None.
        notes: Sentences for the user.
        several: Whether messages name the split of an image.
    """

    def __init__(
        self,
        *,
        name: str,
        shown: str,
        parts: Sequence[tuple[str, Any]],
        column: str,
        pixels: PixelFormat,
        labels: NDArray[np.int64] | None,
        classes: list[str] | None,
        notes: Sequence[str] = (),
        several: bool = False,
    ) -> None:
        super().__init__(pixels)
        self.name = name
        self.labels = labels
        self.classes = classes
        self.notes = list(notes)
        self._shown, self._several = shown, several
        self._column = column
        self._files = [(str(file["filename"]), len(table)) for _, table in parts for file in table.cache_files]
        self._parts = [(part, _stored(table, column)) for part, table in parts]
        self._ends = list(accumulate(len(table) for _, table in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def encoded(self, index: int) -> Encoded:
        """The stored file; see `Source`."""
        part, row = self._find(index)
        value = self._parts[part][1][row].column(0)[0].as_py()
        if isinstance(value, bytes):
            value = {"bytes": value}
        if value is None or (not value.get("bytes") and not value.get("path")):
            raise UnreadableImage(self.path(index), "the table holds no image in this row")
        name = value.get("path") or ""
        content = value.get("bytes") or read_content(Path(name), self.path(index))
        return Encoded(content, Path(name).suffix.removeprefix(".").lower() or _extension(content))

    def path(self, index: int) -> str:
        """Data set, split where there are several, and row."""
        part, row = self._find(index)
        split = f"/{self._parts[part][0]}" if self._several else ""
        return f"{self._shown}{split}[{row}]"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, sizes and modification times of the arrow files, their rows and the column."""
        digest = hashlib.sha256(f"hf\0{self._column}\0{[len(table) for _, table in self._parts]}\n".encode())
        for file, rows in self._files:
            status = Path(file).stat()
            place = "/".join(Path(file).parts[-2:])
            digest.update(f"{place}\0{rows}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _find(self, index: int) -> tuple[int, int]:
        """Number of the part, and row in it."""
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        part = next(number for number, end in enumerate(self._ends) if place < end)
        return part, place - (self._ends[part - 1] if part else 0)


def open_huggingface(data: str, *, pixels: PixelFormat, split: Split) -> HuggingFaceSource:
    """Open DATA that start with `hf:`; see `ibot_cli.data.sources.open_source`.

    `hf:FOLDER` is what `save_to_disk` wrote, or a folder of parquet or arrow files; `hf:NAME` and `hf:NAME:CONFIG` are
    data sets of the Hub. The training part is the split `train`, or the only one; the test part is the first of
    `validation`, `val`, `valid`, `dev` and `test`. The images are in the column of type `Image`, the classes in that of
    type `ClassLabel`, or in one named `label`, `labels` or `class`. Columns can be named: `hf:NAME[image,label]`.

    Raises:
        DataError: Not installed, not found, not reachable, no image, or columns that have to be named.
    """
    address = parse_address(data)
    tables = load_tables(address)
    chosen = _choose(address, tables, split)
    features = tables[chosen[0]].features
    column = image_column(address, features)
    label, doubt = label_column(address, features)
    labels, classes, lack = class_numbers(tables, label, chosen) if label else (None, None, None)
    several = len(tables) > 1
    notes = [note for note in (doubt, lack) if note]
    if several:
        rest = [name for name in tables if name not in chosen]
        notes.insert(0, f"{CHOSEN}{', '.join(chosen)}{'; ' + ', '.join(rest) + ' not used' if rest else ''}.")
    return HuggingFaceSource(
        name=f"{address.shown} ({', '.join(chosen)})" if several else address.shown,
        shown=address.shown,
        parts=[(name, tables[name]) for name in chosen],
        column=column,
        pixels=pixels,
        labels=labels,
        classes=classes,
        notes=notes,
        several=several,
    )


def split_names(data: str) -> list[str]:
    """The training split of DATA that start with `hf:`, then those for testing; a list of one has no test part.

    Raises:
        DataError: As `open_huggingface`.
    """
    address = parse_address(data)
    return _known(address, load_tables(address))


def _choose(address: Address, tables: Tables, split: Split) -> list[str]:
    known = _known(address, tables)
    if split == "test":
        if len(known) < 2:
            raise no_test_split(address.shown)
        return known[1:2]
    return known[:1] if split == "train" else known


def _known(address: Address, tables: Tables) -> list[str]:
    """Splits with a known meaning, the one for training first."""
    if not tables:
        raise DataError(f"{address.shown} is empty.", hint="It needs rows with images.")
    if len(tables) == 1:
        return list(tables)
    if TRAIN not in tables:
        raise DataError(
            f"{address.shown} has no split named train: there are {', '.join(tables)}.",
            hint="Save the one to train on by itself with save_to_disk, and give that folder.",
        )
    return [TRAIN, *(name for name in TESTS if name in tables)]


def _stored(table: Any, column: str) -> Any:
    """The table with nothing but the images, as they are stored; rows come as arrow tables."""
    datasets = import_datasets("hf:")
    only = table.select_columns([column])
    if type(only.features[column]).__name__ == "Image":
        only = only.cast_column(column, datasets.Image(decode=False))
    return only.with_format("arrow")


def _extension(content: bytes) -> str:
    """What a file with these first bytes is called, or `""`."""
    return next((name for magic, name in MAGIC.items() if content.startswith(magic)), "")
