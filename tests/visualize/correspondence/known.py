"""Networks whose right answers are known, and a picture that says where each of its pixels is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ibot_cli.config.schema import ViewsConfig
from ibot_cli.core.backbone import Backbone, BlockTokens
from ibot_cli.weights.load import LoadedBackbone

STRIDE = 8


class _Patches(Backbone):
    """A backbone of which only the patches of the last block matter."""

    def __init__(self) -> None:
        super().__init__()
        self.stride, self.image_size, self.channels, self.dim, self.num_blocks = STRIDE, 64, 3, 4, 1
        self.scale = torch.nn.Parameter(torch.ones(1))

    def patches(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def last_blocks(self, images: Tensor, num_blocks: int) -> list[BlockTokens]:
        tokens = self.patches(images) * self.scale
        return [BlockTokens(tokens.mean(dim=1), tokens, tokens)]

    def forward(self, *_: object) -> Tensor:
        raise NotImplementedError

    def intermediate(self, *_: object) -> list[Tensor]:
        raise NotImplementedError

    def attention(self, *_: object) -> Tensor:
        raise NotImplementedError


class ByColour(_Patches):
    """Reads the place from red and green; the nearest feature is the nearest place, in x and in y."""

    def patches(self, images: Tensor) -> Tensor:
        places = functional.avg_pool2d(images[:, :2], STRIDE).flatten(2).transpose(1, 2) * torch.pi
        return torch.cat([places.cos(), places.sin()], dim=2)


class ByPlace(_Patches):
    """Knows only where in the view a patch is."""

    def patches(self, images: Tensor) -> Tensor:
        rows, columns = (side // STRIDE for side in images.shape[2:])
        return torch.eye(rows * columns).expand(len(images), -1, -1)


class Constant(_Patches):
    """The same for every patch."""

    def patches(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), images.shape[2] * images.shape[3] // STRIDE**2, 4)


class NotFinite(_Patches):
    """As after a training that diverged."""

    def patches(self, images: Tensor) -> Tensor:
        return torch.full((len(images), images.shape[2] * images.shape[3] // STRIDE**2, 4), torch.nan)


def loaded(network: Backbone | None = None) -> LoadedBackbone:
    """As of a run that mirrored its views and left colours, which tell the place, as they were."""
    return LoadedBackbone(
        backbone=network or ByColour(),
        head=None,
        channels=3,
        image_size=64,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        crop_ratio=1.0,
        description="known",
        weights_hash="0" * 64,
        architecture="known",
        rebuild=Constant,
        views=ViewsConfig(jitter_prob=0.0, gray_prob=0.0),
    )


def map_image(size: int = 256) -> Image.Image:
    """Red is the column, green the row."""
    levels = np.zeros((size, size, 3), dtype=np.uint8)
    levels[..., 0], levels[..., 1] = np.arange(size), np.arange(size)[:, None]
    return Image.fromarray(levels)


def write_map(path: Path, box: tuple[int, int, int, int] | None = None) -> str:
    image = map_image() if box is None else map_image().crop(box)
    image.save(path)
    return str(path)
