"""Small networks with fresh weights, as if they had been loaded."""

from __future__ import annotations

from typing import Any

import torch

from ibot_cli.core.backbone import Backbone, build_backbone
from ibot_cli.data.transform import normalisation
from ibot_cli.weights.load import LoadedBackbone

TINY = {"arch": "vit_tiny", "image_size": 16, "patch_size": 4, "width": 16, "depth": 2, "heads": 2}


def loaded_network(*, channels: int = 1, seed: int = 0, **shape: Any) -> LoadedBackbone:
    """A tiny ViT (16 pixels, patches of 4, 2 heads) unless `shape` says otherwise."""
    options = {**(TINY if "arch" not in shape else {}), **shape, "channels": channels}

    def build() -> Backbone:
        return build_backbone(**options)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build().eval()
    return wrapped(backbone)


def wrapped(backbone: Backbone) -> LoadedBackbone:
    """The backbone as `load_weights` would give it."""
    mean, std = normalisation(backbone.channels)
    return LoadedBackbone(
        backbone=backbone,
        head=None,
        channels=backbone.channels,
        image_size=backbone.image_size,
        mean=mean,
        std=std,
        crop_ratio=1.0,
        description="tiny",
        weights_hash="0" * 64,
        architecture="tiny",
        rebuild=lambda: backbone,
    )
