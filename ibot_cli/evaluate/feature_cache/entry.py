"""One cached set of features on disk: a file per part, and journals of which blocks they hold.

A line of a journal is written after the rows it tells of, and carries their checksum and its own. So nothing has to be
in step: what a killed process or a power cut left half done has no line or a wrong checksum, and is computed again.

Shapes: R rows (asked images), D features.
"""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.evaluate.feature_cache.store import Bad, Block, Layout

_SUFFIX = {torch.float32: "f32", torch.bfloat16: "bf16"}
_STORED: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("<f4"),
    torch.bfloat16: np.dtype("<u2"),  # numpy has no bfloat16
}


@dataclass(frozen=True)
class _Written:
    """One part of one block: numbers per row (0 where no image is readable), checksum, unreadable images."""

    width: int
    checksum: int
    bad: Bad


class DiskStore:
    """The features in a directory; only the holder of its lock and those it works with may write.

    Args:
        directory: Of this set of features alone; it exists if anything is to be written.
        layout: How rows are cut into blocks.
        dtype: float32 or bfloat16.
        writer: Tells the journals of processes that write at the same time apart.
    """

    def __init__(self, directory: Path, layout: Layout, dtype: torch.dtype, writer: int = 0) -> None:
        self.directory, self.layout = directory, layout
        self._dtype = dtype
        self._journal = directory / f"blocks-{writer}.jsonl"
        self._written: dict[tuple[int, str], _Written] = {}
        self._maps: dict[str, NDArray[Any]] = {}  # kept, so that what was verified stays if the entry is removed
        self.reload()

    def reload(self) -> None:
        """Read the journals of all writers again."""
        records = [record for journal in self.directory.glob("blocks-*.jsonl") for record in _records(journal)]
        records.sort(key=lambda record: int(record["time_ns"]))  # of the same block the last one counts
        self._written = {place: written for record in records for place, written in _parse(record)}
        self._maps = {}

    def has(self, block: int, part: str) -> bool:
        """See `Store`."""
        return (block, part) in self._written

    def verify(self, parts: Iterable[str]) -> dict[str, int]:
        """Forget the blocks of these parts whose rows are not what was written.

        Returns:
            Part -> number of forgotten blocks.
        """
        damaged: Counter[str] = Counter()
        for part in parts:
            column = self._map(part)
            for block in range(len(self.layout)):
                written = self._written.get((block, part))
                if written is not None and not self._intact(column, block, written):
                    del self._written[block, part]
                    damaged[part] += 1
        return dict(damaged)

    def forget(self, rows: Iterable[int]) -> None:
        """Forget the blocks of these rows."""
        blocks = {row // self.layout.block_rows for row in rows}
        self._written = {place: written for place, written in self._written.items() if place[0] not in blocks}

    def write(self, block: Block) -> None:
        """See `Store`.

        Raises:
            OSError: The disk is full or not writable.
        """
        widths = {}
        for part, values in block.parts.items():
            content = np.empty(0, dtype=np.uint8) if values is None else _bytes(values.to(self._dtype))
            width = 0 if values is None else values.shape[1]
            if values is not None:
                self._put(part, block.number, width, content)
            widths[part] = _Written(width, zlib.crc32(content.data), block.bad)
        bad = [[row, *why] for row, why in block.bad.items()]
        parts = {part: [written.width, written.checksum] for part, written in widths.items()}
        text = json.dumps({"time_ns": time.time_ns(), "block": block.number, "bad": bad, "parts": parts})
        with self._journal.open("ab") as file:  # starts a new line, because a killed writer may have left half a one
            file.write(f"\n{zlib.crc32(text.encode()):08x} {text}\n".encode())
        self._written |= {(block.number, part): written for part, written in widths.items()}

    def read(self, block: int, parts: Iterable[str]) -> Block:
        """See `Store`."""
        rows = self.layout.rows(block)
        parts = list(parts)
        bad = {row: why for part in parts for row, why in self._written[block, part].bad.items()}
        columns = self.columns(parts)
        found = {part: columns[part][rows.start : rows.stop] if self._written[block, part].width else None
                 for part in parts}  # fmt: skip
        return Block(block, found, bad)

    def columns(self, parts: Iterable[str]) -> dict[str, Tensor]:
        """See `Store`; the tensors are maps of the files, and changing them does not change the files."""
        maps = {part: self._map(part) for part in parts}
        return {part: torch.from_numpy(found).view(self._dtype) for part, found in maps.items() if found is not None}

    def bad(self, parts: Iterable[str]) -> Bad:
        """See `Store`."""
        parts = set(parts)
        found = [written.bad for (_, part), written in sorted(self._written.items()) if part in parts]
        return {row: why for bad in found for row, why in bad.items()}

    def _file(self, part: str) -> Path:
        return self.directory / f"{part}.{_SUFFIX[self._dtype]}"

    def _put(self, part: str, block: int, width: int, content: NDArray[np.uint8]) -> None:
        self._maps.pop(part, None)
        path = self._file(part)
        row_bytes = width * _STORED[self._dtype].itemsize
        path.touch()
        with path.open("r+b") as file:
            if file.seek(0, 2) != self.layout.num_rows * row_bytes:
                file.truncate(self.layout.num_rows * row_bytes)
            file.seek(self.layout.rows(block).start * row_bytes)
            file.write(content.data)

    def _map(self, part: str) -> NDArray[Any] | None:
        """`[R, D]`, or None where there is no such file or it has another size than the journals say."""
        if part in self._maps:
            return self._maps[part]
        widths = {written.width for (_, name), written in self._written.items() if name == part} - {0}
        stored = _STORED[self._dtype]
        try:
            shape = (self.layout.num_rows, widths.pop())
            if widths or self._file(part).stat().st_size != shape[0] * shape[1] * stored.itemsize:
                return None
            found: NDArray[Any] = np.memmap(self._file(part), dtype=stored, mode="c", shape=shape)
        except (KeyError, OSError, ValueError):
            return None
        self._maps[part] = found
        return found

    def _intact(self, column: NDArray[Any] | None, block: int, written: _Written) -> bool:
        rows = self.layout.rows(block)
        if written.width == 0:
            return written.checksum == 0 and len(written.bad) == len(rows)
        return column is not None and zlib.crc32(column[rows.start : rows.stop].view(np.uint8).data) == written.checksum


def _bytes(values: Tensor) -> NDArray[np.uint8]:
    return values.contiguous().view(torch.uint8).numpy()


def _records(journal: Path) -> Iterator[dict[str, Any]]:
    """The lines that are whole; an unreadable journal has none."""
    try:
        content = journal.read_bytes()
    except OSError:
        return
    for line in content.splitlines():
        checksum, _, text = line.partition(b" ")
        if text and checksum == f"{zlib.crc32(text):08x}".encode():
            yield json.loads(text)


def _parse(record: Mapping[str, Any]) -> Iterator[tuple[tuple[int, str], _Written]]:
    bad = {row: (path, reason) for row, path, reason in record["bad"]}
    for part, (width, checksum) in record["parts"].items():
        yield (record["block"], part), _Written(width, checksum, bad)
