"""Where a feature pass puts its rows, block by block.

Shapes: R rows (asked images), D features. A block is a number of consecutive rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

_BATCHES = 16  # per block at most
_BLOCKS = 8  # at least, where there are so many batches


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
        """Blocks of whole batches, 1 to 16, about 8 blocks or more."""
        batches = -(-num_rows // (batch_size * _BLOCKS))
        return cls(num_rows, batch_size * min(max(batches, 1), _BATCHES))

    def __len__(self) -> int:
        return -(-self.num_rows // self.block_rows)

    def rows(self, block: int) -> range:
        """The rows of a block."""
        return range(block * self.block_rows, min((block + 1) * self.block_rows, self.num_rows))


@dataclass(frozen=True)
class Block:
    """The finished rows of one block.

    Attributes:
        number: Which.
        rows: The readable ones, ascending.
        parts: Part -> `[len(rows), D]` on the CPU; no entry where no row is readable.
        bad: Row -> path and reason of the others.
    """

    number: int
    rows: Sequence[int]
    parts: Mapping[str, Tensor]
    bad: Mapping[int, tuple[str, str]]


class Store(Protocol):
    """Takes blocks; what it has been given already need not be computed."""

    layout: Layout

    def missing(self, parts: Sequence[str]) -> dict[int, list[str]]:
        """Block -> the parts it lacks, for the blocks that lack any."""

    def write(self, block: Block) -> None:
        """Take a block."""

    def columns(self, parts: Sequence[str]) -> dict[str, Tensor]:
        """Part -> `[R, D]`, once nothing is missing."""

    def bad(self) -> dict[int, tuple[str, str]]:
        """Row -> path and reason of all unreadable images met."""


@dataclass
class MemoryStore:
    """Keeps the features in memory."""

    layout: Layout
    dtype: torch.dtype
    _columns: dict[str, Tensor] = field(default_factory=dict)
    _bad: dict[int, tuple[str, str]] = field(default_factory=dict)
    _done: set[int] = field(default_factory=set)

    def missing(self, parts: Sequence[str]) -> dict[int, list[str]]:
        """See `Store`."""
        return {block: list(parts) for block in range(len(self.layout)) if block not in self._done}

    def write(self, block: Block) -> None:
        """See `Store`."""
        for part, values in block.parts.items():
            if part not in self._columns:
                self._columns[part] = torch.zeros(self.layout.num_rows, values.shape[1], dtype=self.dtype)
            self._columns[part][list(block.rows)] = values.to(self.dtype)
        self._bad |= block.bad
        self._done.add(block.number)

    def columns(self, parts: Sequence[str]) -> dict[str, Tensor]:
        """See `Store`."""
        return {part: self._columns[part] for part in parts if part in self._columns}

    def bad(self) -> dict[int, tuple[str, str]]:
        """See `Store`."""
        return self._bad
