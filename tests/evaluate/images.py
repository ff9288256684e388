"""Tiny networks and images that the tests of this folder share."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ibot_cli.data.decode import UnreadableImage
from tests.pictures import Pictures


class MeanColour(nn.Module):
    """A backbone whose class token is the mean of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        cls = self.dropout(images.mean(dim=(2, 3), keepdim=False).unsqueeze(1) * self.scale)
        return torch.cat([cls, torch.zeros_like(cls)], dim=1)


class Coloured(Pictures):
    """A source whose images of class c are mostly colour c; those in `bad` cannot be read."""

    def __init__(self, labels: list[int] | None, num: int = 0, bad: tuple[int, ...] = ()) -> None:
        self.name = "coloured"
        self.labels = None if labels is None else np.array(labels, dtype=np.int64)
        self.classes = None if labels is None else [f"colour {label}" for label in range(3)]
        self.fingerprint = f"{labels} {num}"
        self.notes: list[str] = []
        self._num = num if labels is None else len(labels)
        self._bad = bad

    def __len__(self) -> int:
        return self._num

    def read(self, index: int) -> Image.Image:
        if index in self._bad:
            raise UnreadableImage(self.path(index), "damaged")
        levels = np.random.default_rng(index).integers(0, 60, (8, 8, 3), dtype=np.uint8)
        levels[:, :, 0 if self.labels is None else self.labels[index]] += 150
        return Image.fromarray(levels)

    def path(self, index: int) -> str:
        return f"image {index}"


def write_folder(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Class folders of 12 x 12 noise whose brightness is the class's."""
    rng = np.random.default_rng(seed)
    for place, (name, count) in enumerate(sorted(counts.items())):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            levels = rng.integers(0, 40, (12, 12, 3), dtype=np.uint8) + np.uint8(60 * place)
            levels[:6] //= 2
            Image.fromarray(levels).save(root / name / f"{index}.png")
    return root
