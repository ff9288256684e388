"""Memory of a loader process that the main process sees too, used again for later micro-batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

AHEAD = 2  # micro-batches that a loader process may make before the main process takes them


class LentMemory:
    """Shared memory in a few rounds, so that a micro-batch is not overwritten while the main process uses it.

    The system clears every page of fresh shared memory, which took 7 % of a loader process's time. A loader process is
    never more than `AHEAD` micro-batches beyond the one that the main process took last, so one round more is enough,
    provided the main process is done with a micro-batch when it takes the next.

    Args:
        rounds: Micro-batches until memory is used again.
    """

    def __init__(self, rounds: int = AHEAD + 1) -> None:
        self._rounds: list[list[torch.UntypedStorage]] = [[] for _ in range(rounds)]
        self._given = 0

    def turn(self) -> None:
        """Begins the next micro-batch."""
        self._rounds.append(self._rounds.pop(0))
        self._given = 0

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor for this micro-batch."""
        count, blocks, place = math.prod(shape), self._rounds[0], self._given
        if place == len(blocks):
            blocks.append(_shared(0))
        if blocks[place].nbytes() < count * dtype.itemsize:
            blocks[place] = _shared(count * dtype.itemsize)
        self._given += 1
        return torch.empty(0, dtype=dtype).set_(blocks[place])[:count].view(shape)


_OWN = LentMemory()


def next_round() -> None:
    """Begins the next micro-batch of this process."""
    _OWN.turn()


def handed_over(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor for a result of this process; in loader processes see `LentMemory`."""
    return torch.empty(shape, dtype=dtype) if get_worker_info() is None else _OWN.tensor(shape, dtype)


def _shared(size: int) -> torch.UntypedStorage:
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(size)  # as torch's own collate function does
    return storage
