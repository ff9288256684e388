"""A network that counts its forward passes, images, and a feature pass over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ibot_cli.core.backbone import BlockTokens
from ibot_cli.core.vit import ViT
from ibot_cli.data.decode import UnreadableImage
from ibot_cli.evaluate.feature_cache.table import FeatureTable
from ibot_cli.evaluate.features import feature_pass
from ibot_cli.weights.load import LoadedBackbone, weights_hash
from tests.core import tiny
from tests.evaluate.images import Coloured

BATCH = 2
NUM = 37  # 19 batches of 2, in blocks of 2 batches; the last one is short
EVERYTHING = ("cls3", "mean3+cls", "rawmean2")
ALL_PARTS = ("cls@3", "cls@2", "cls@1", "mean@3", "mean@2", "mean@1", "rawmean@2", "rawmean@1")


class Counting(ViT):
    """Counts images that went through it."""

    images = 0

    def forward(self, images: Tensor, *args: Any, **options: Any) -> Tensor:
        self.images += len(images)
        return super().forward(images, *args, **options)

    def last_blocks(self, images: Tensor, num_blocks: int) -> list[BlockTokens]:
        self.images += len(images)
        return super().last_blocks(images, num_blocks)


def fresh() -> Counting:
    return Counting(image_size=8, channels=3, patch_size=4, width=16, depth=3, heads=2, mask_token=False)


def network(seed: int = 0) -> Counting:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = fresh()
    tiny.scatter(found, seed)
    return found.eval()


def loaded(seed: int = 0, **changes: Any) -> LoadedBackbone:
    backbone = network(seed)
    values: dict[str, Any] = {
        "backbone": backbone,
        "head": None,
        "channels": 3,
        "image_size": 8,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "crop_ratio": 1.0,
        "description": "a small network",
        "weights_hash": weights_hash(backbone),
        "architecture": "small",
        "rebuild": fresh,
    }
    return LoadedBackbone(**{**values, **changes})


class Pictures(Coloured):
    """Noise; those in `bad` cannot be read."""

    def __init__(self, num: int = NUM, bad: tuple[int, ...] = (), fingerprint: str = "pictures") -> None:
        super().__init__(None, num, bad)
        self.name, self.fingerprint, self.reads = "pictures", fingerprint, 0

    def read(self, index: int) -> Image.Image:
        self.reads += 1
        if index in self._bad:
            raise UnreadableImage(self.path(index), "damaged")
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def run(model: LoadedBackbone, source: Pictures | None = None, **options: Any) -> FeatureTable:
    options = {"poolings": EVERYTHING, "batch_size": BATCH, **options}
    return feature_pass(model, Pictures() if source is None else source, **options)


def counted(model: LoadedBackbone) -> int:
    """Images since the last call."""
    assert isinstance(model.backbone, Counting)
    number, model.backbone.images = model.backbone.images, 0
    return number


def same(one: FeatureTable, two: FeatureTable, poolings: tuple[str, ...] = EVERYTHING) -> bool:
    """Bit for bit."""
    return (
        bool(np.array_equal(one.index, two.index))
        and one.bad == two.bad
        and all(torch.equal(one.pooled(pooling), two.pooled(pooling)) for pooling in poolings)
    )
