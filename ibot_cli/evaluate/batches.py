"""Batches of prepared images in a given order, without those that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.sources import Source

Transform = Callable[[np.ndarray], Tensor]
"""From levels `[H, W, C]` to what a network sees, `[C, h, w]`."""


@dataclass(frozen=True)
class Batch:
    """The readable images of some places, and the unreadable ones.

    Attributes:
        images: `[B, C, H, W]`, or empty when none can be read.
        places: Their places among the chosen images.
        sizes: Their width and height before the transform.
        bad: Place -> path and reason.
    """

    images: Tensor
    places: list[int]
    sizes: list[tuple[int, int]]
    bad: dict[int, tuple[str, str]]

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU can fetch from; the loader calls it."""
        return Batch(self.images.pin_memory(), self.places, self.sizes, self.bad)


def read_batches(
    source: Source,
    transform: Transform,
    chosen: NDArray[np.int64],
    batches: Sequence[Sequence[int]],
    *,
    workers: int = 0,
    pinned: bool = False,
) -> Iterator[Batch]:
    """Batches in the given order; no generator is touched.

    Args:
        source: The images.
        transform: From levels `[H, W, C]` to `[C, h, w]`.
        chosen: int64, the images by their place in the source.
        batches: Places in `chosen`, one list per batch.
        workers: Loader processes; 0 loads in this one.
        pinned: Whether the images go to a GPU.
    """
    return iter(
        DataLoader(
            _Images(source, transform, chosen),
            batch_sampler=[list(places) for places in batches],
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pinned,
            generator=torch.Generator(),  # without one, the loader draws a seed from the global generator
        )
    )


def default_workers(device: torch.device) -> int:
    """Loader processes that pay off: none on a CPU, where they would take the cores from the network."""
    return 0 if device.type == "cpu" else max(0, min(8, (os.cpu_count() or 1) - 1))


class _Prepared(NamedTuple):
    image: Tensor
    size: tuple[int, int]


class _Images(Dataset[tuple[int, _Prepared | UnreadableImage]]):
    def __init__(self, source: Source, transform: Transform, chosen: NDArray[np.int64]) -> None:
        self.source, self.transform, self.chosen = source, transform, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, place: int) -> tuple[int, _Prepared | UnreadableImage]:
        try:
            levels = self.source.levels(int(self.chosen[place]))
            return place, _Prepared(self.transform(levels), (levels.shape[1], levels.shape[0]))
        except UnreadableImage as error:
            return place, error


def _collate(items: list[tuple[int, _Prepared | UnreadableImage]]) -> Batch:
    good = [(place, item) for place, item in items if isinstance(item, _Prepared)]
    bad = {place: (item.path, item.reason) for place, item in items if isinstance(item, UnreadableImage)}
    images = torch.stack([item.image for _, item in good]) if good else torch.empty(0)
    return Batch(images, [place for place, _ in good], [item.size for _, item in good], bad)
