"""Where a linear sweep takes its batches from: features that are kept, or images augmented anew in every epoch.

Shapes: T steps of B rows, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.data.rng import epoch_order
from ibot_cli.evaluate.linear.window import STEPS

Batches = Iterator[tuple[Mapping[str, Tensor], Tensor]]


class Feed(Protocol):
    """The same batches for all heads.

    Attributes:
        steps_per_epoch: Whole batches in an epoch; what is left over is not shown.
        bad: Unreadable images met while going through the epochs: path -> reason.
    """

    steps_per_epoch: int
    bad: dict[str, str]

    def epoch(self, epoch: int) -> Batches:
        """Pooling -> features `[T * B, D]` and labels `[T * B]` of a few steps at a time, on the device."""

    def close(self) -> None:
        """End what the feed has started."""


class CachedFeed:
    """Batches from features that were computed once.

    Epoch e goes through `epoch_order(seed, e, n)`.

    Args:
        features: Pooling -> `[m, D]` on the CPU; moved to the device where all of them take at most half of what is
            free there.
        labels: int64 `[m]`.
        rows: int64 `[n]`, the rows that are learnt from.
        batch: B, at most n.
        seed: Of the order.
        device: Where the batches are wanted.
    """

    def __init__(
        self,
        features: Mapping[str, Tensor],
        labels: Tensor,
        rows: NDArray[np.int64],
        *,
        batch: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.bad: dict[str, str] = {}  # such images have no features
        self.steps_per_epoch = len(rows) // batch
        self._batch, self._seed, self._device = batch, seed, device
        self._rows = torch.from_numpy(rows)
        keep = device if _fits(features, device) else torch.device("cpu")
        self._features = {name: table.to(keep) for name, table in features.items()}
        self._labels = labels

    def epoch(self, epoch: int) -> Batches:
        """See `Feed.epoch`."""
        order = self._rows[torch.from_numpy(epoch_order(self._seed, epoch, len(self._rows)))]
        for rows in order[: self.steps_per_epoch * self._batch].split(STEPS * self._batch):
            yield (
                {name: table[rows.to(table.device)].to(self._device) for name, table in self._features.items()},
                self._labels[rows].to(self._device),
            )

    def close(self) -> None:
        """See `Feed.close`."""


def _fits(features: Mapping[str, Tensor], device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    wanted = sum(table.numel() * table.element_size() for table in features.values())
    return wanted <= torch.cuda.mem_get_info(device)[0] // 2
