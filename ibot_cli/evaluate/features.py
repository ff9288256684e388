"""Class-token features of images, in the order of their source."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.sources import Source
from ibot_cli.errors import DataError
from ibot_cli.evaluate.precision import exact_float32

Transform = Callable[[Image.Image], Tensor]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Features:
    """Features of the readable images.

    Attributes:
        cls: float32 `[n, D]` on the CPU, not normalised.
        index: int64 `[n]`, the image's place in the source, ascending as asked.
        bad: Unreadable images: path -> reason.
    """

    cls: Tensor
    index: NDArray[np.int64]
    bad: dict[str, str]


def extract(
    backbone: nn.Module,
    source: Source,
    transform: Transform,
    *,
    index: NDArray[np.int64] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    progress: Progress | None = None,
) -> Features:
    """Class-token features in float32; nothing random happens, and no generator is touched.

    Args:
        backbone: Images `[B, C, H, W]` to tokens `[B, 1 + N, D]`, class token first. It is moved to `device`; its mode
            (training or evaluation) is restored.
        source: The images.
        transform: From an image to `[C, H, W]`.
        index: Which images, and in which order; all when None.
        device: Where to compute.
        batch_size: Images per forward pass.
        workers: Loader processes; 0 loads in this one.
        progress: Called with the images done and their total.

    Raises:
        DataError: No image can be read.
    """
    chosen = np.arange(len(source), dtype=np.int64) if index is None else np.asarray(index, dtype=np.int64)
    device = torch.device(device)
    loader = DataLoader(
        _Images(source, transform, chosen),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate,
        generator=torch.Generator(),  # without one, the loader draws a seed from the global generator
    )
    was_training = backbone.training
    backbone.to(device).eval()
    found: Tensor | None = None
    places: list[int] = []
    bad: dict[str, str] = {}
    try:
        with exact_float32(device):
            for done, (images, good, faults) in enumerate(loader, start=1):
                bad |= faults
                if good:
                    cls = backbone(images.to(device))[:, 0].float().cpu()
                    found = torch.empty(len(chosen), cls.shape[1]) if found is None else found
                    found[len(places) : len(places) + len(good)] = cls
                    places += good
                if progress is not None:
                    progress(min(done * batch_size, len(chosen)), len(chosen))
    finally:
        backbone.train(was_training)
    if found is None:
        first = next((f" ({path}: {reason})" for path, reason in bad.items()), "")
        raise DataError(f"No image of {source.name} can be read{first}.", "Check the files.")
    return Features(found[: len(places)].clone(), chosen[places], bad)


def default_workers(device: torch.device) -> int:
    """Loader processes that pay off: none on a CPU, where they would take the cores from the network."""
    return 0 if device.type == "cpu" else max(0, min(8, (os.cpu_count() or 1) - 1))


class _Images(Dataset[tuple[int, Tensor | UnreadableImage]]):
    def __init__(self, source: Source, transform: Transform, chosen: NDArray[np.int64]) -> None:
        self.source, self.transform, self.chosen = source, transform, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, place: int) -> tuple[int, Tensor | UnreadableImage]:
        try:
            return place, self.transform(self.source.read(int(self.chosen[place])))
        except UnreadableImage as error:
            return place, error


def _collate(items: list[tuple[int, Tensor | UnreadableImage]]) -> tuple[Tensor, list[int], dict[str, str]]:
    """Images `[B', C, H, W]`, their places, and the unreadable ones."""
    good = [(place, item) for place, item in items if isinstance(item, Tensor)]
    faults = {item.path: item.reason for _, item in items if isinstance(item, UnreadableImage)}
    images = torch.stack([image for _, image in good]) if good else torch.empty(0)
    return images, [place for place, _ in good], faults
