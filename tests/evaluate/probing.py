"""A tiny network on disk, for tests of linear probes."""

from pathlib import Path

import torch

from ibot_cli.core.backbone import build_backbone
from ibot_cli.weights.load import LoadedBackbone, load_weights


def tiny_vit(folder: Path, channels: int = 3) -> LoadedBackbone:
    """A ViT for 12 x 12 pixels with two blocks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone(
            arch="vit_tiny", image_size=12, channels=channels, patch_size=4, width=16, depth=2, heads=2
        )
    torch.save(backbone.state_dict(), folder / "weights.pth")
    return load_weights(str(folder / "weights.pth"), heads=2)
