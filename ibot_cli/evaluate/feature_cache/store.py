"""Blocks of rows, and the store that keeps them in memory.

Shapes: R rows (asked images), D features. A block is a number of consecutive rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ibot_cli import distributed

_BATCHES = 16  # per block at most
_BLOCKS = 8  # at least, where there are so many batches
_EXCHANGED = 65_536  # rows at once

Bad = dict[int, tuple[str, str]]


@dataclass(frozen=True)
class Layout:
    """How rows are cut into blocks.

    Attributes:
        num_rows: R.
        block_rows: Rows of a block; the last may have fewer.
    """

    num_rows: int
    block_rows: int

    @classmethod
    def of(cls, num_rows: int, batch_size: int) -> Layout:
        """Blocks of 1 to 16 whole batches, at least 8 blocks where there are so many batches."""
        batches = num_rows // (batch_size * _BLOCKS)
        return cls(num_rows, batch_size * min(max(batches, 1), _BATCHES))

    def __len__(self) -> int:
        return -(-self.num_rows // self.block_rows)

    def rows(self, block: int) -> range:
        """The rows of a block."""
        return range(block * self.block_rows, min((block + 1) * self.block_rows, self.num_rows))


@dataclass(frozen=True)
class Block:
    """The rows of one block.

    Attributes:
        number: Which.
        parts: Part -> `[rows of the block, D]` on the CPU, zeros for unreadable images; None where none is readable.
        bad: Row -> path and reason of the unreadable images.
    """

    number: int
    parts: Mapping[str, Tensor | None]
    bad: Bad


class Store(Protocol):
    """Takes blocks; what it has already need not be computed."""

    @property
    def layout(self) -> Layout:
        """How rows are cut into blocks."""

    def has(self, block: int, part: str) -> bool:
        """Whether the part of the block is there."""

    def write(self, block: Block) -> None:
        """Take a block; parts that are there already may come again."""

    def read(self, block: int, parts: Iterable[str]) -> Block:
        """Parts of a block that are there."""

    def columns(self, parts: Iterable[str]) -> dict[str, Tensor]:
        """Part -> `[R, D]`; no entry where no image can be read."""

    def bad(self, parts: Iterable[str]) -> Bad:
        """Row -> path and reason of the unreadable images."""


def missing(store: Store, parts: Sequence[str]) -> dict[int, list[str]]:
    """Block -> the parts it lacks, for the blocks that lack any."""
    lacking = {block: [part for part in parts if not store.has(block, part)] for block in range(len(store.layout))}
    return {block: absent for block, absent in lacking.items() if absent}


@dataclass
class MemoryStore:
    """Keeps the features in memory.

    Args:
        layout: How rows are cut into blocks.
        dtype: Of the features.
    """

    layout: Layout
    dtype: torch.dtype
    _columns: dict[str, Tensor] = field(default_factory=dict)
    _done: dict[tuple[int, str], Bad] = field(default_factory=dict)

    @classmethod
    def holding(cls, store: Store, wanted: Mapping[int, Sequence[str]], dtype: torch.dtype) -> MemoryStore:
        """What another store has of the wanted parts of blocks."""
        found = cls(store.layout, dtype)
        for block, parts in wanted.items():
            present = [part for part in parts if store.has(block, part)]
            if present:
                found.write(store.read(block, present))
        return found

    def exchange(self) -> None:
        """Give every process the blocks of all; no two processes may hold the same part of a block."""
        widths = distributed.merged({part: str(column.shape[1]) for part, column in self._columns.items()})
        for part in sorted(widths):
            column = self._column(part, int(widths[part]))
            for chunk in column.split(_EXCHANGED):
                bits = chunk.view(torch.int32 if self.dtype.itemsize == 4 else torch.int16)
                bits.copy_(distributed.sum_over_ranks(bits.int()))  # to the bit: all but one process have zeros
        own = {json.dumps(place): json.dumps(list(bad.items())) for place, bad in self._done.items()}
        for place, bad in distributed.merged(own).items():
            block, part = json.loads(place)
            self._done[block, part] = {row: (path, reason) for row, (path, reason) in json.loads(bad)}

    def has(self, block: int, part: str) -> bool:
        """See `Store`."""
        return (block, part) in self._done

    def write(self, block: Block) -> None:
        """See `Store`."""
        rows = self.layout.rows(block.number)
        for part, values in block.parts.items():
            if values is not None:
                self._column(part, values.shape[1])[rows.start : rows.stop] = values
            self._done[block.number, part] = block.bad

    def read(self, block: int, parts: Iterable[str]) -> Block:
        """See `Store`."""
        rows = self.layout.rows(block)
        bad = self._bad({(block, part) for part in parts})
        columns = {part: self._columns.get(part) if len(bad) < len(rows) else None for part in parts}
        return Block(
            block, {part: None if c is None else c[rows.start : rows.stop] for part, c in columns.items()}, bad
        )

    def columns(self, parts: Iterable[str]) -> dict[str, Tensor]:
        """See `Store`."""
        return {part: self._columns[part] for part in parts if part in self._columns}

    def bad(self, parts: Iterable[str]) -> Bad:
        """See `Store`."""
        parts = set(parts)
        return self._bad({place for place in self._done if place[1] in parts})

    def _column(self, part: str, width: int) -> Tensor:
        if part not in self._columns:
            self._columns[part] = torch.zeros(self.layout.num_rows, width, dtype=self.dtype)
        return self._columns[part]

    def _bad(self, places: set[tuple[int, str]]) -> Bad:
        return {row: why for place in sorted(places) for row, why in self._done[place].items()}
