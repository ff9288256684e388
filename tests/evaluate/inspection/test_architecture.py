from dataclasses import replace

import pytest
import torch

from ibot_cli.evaluate.inspection.architecture import describe_architecture
from ibot_cli.weights.layouts.found import TimmNetwork
from ibot_cli.weights.loaded import LoadedBackbone
from ibot_cli.weights.shapes import BackboneShape


def loaded(shape: BackboneShape) -> LoadedBackbone:
    with torch.device("meta"):
        backbone = shape.build()
    return LoadedBackbone(
        backbone=backbone, head=None, channels=shape.channels, image_size=shape.image_size, mean=(), std=(),
        crop_ratio=1, description="", weights_hash="", architecture="", rebuild=shape.build, shape=shape,
    )  # fmt: skip


SMALL = BackboneShape(arch="vit_small", image_size=224)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        (SMALL, "ViT-S/16, 224 px, 3 channels, width 384, depth 12, 6 heads"),
        (
            replace(SMALL, patch_size=14, image_size=518, registers=4, layer_scale=1.0),
            "ViT-S/14, 518 px, 3 channels, width 384, depth 12, 6 heads, 4 registers, layer scale",
        ),
        (
            replace(SMALL, arch="vit_base", depth=10),
            "ViT, 224 px, 3 channels, patches of 16 px, width 768, depth 10, 12 heads; "
            "the nearest that has a name is ViT-B",
        ),
        (
            replace(SMALL, arch="swin_tiny", window_size=14),
            "Swin-T, 224 px, 3 channels, windows of 14, width 768, depth 12",
        ),
    ],
)
def test_networks_of_ours_in_words(shape: BackboneShape, sentence: str) -> None:
    assert describe_architecture(loaded(shape)).sentence() == sentence


def test_a_network_of_timm_in_words() -> None:
    with torch.random.fork_rng(devices=[]):
        backbone = TimmNetwork(name="test_vit").build()
    given = replace(loaded(SMALL), backbone=backbone, shape=None, image_size=160)
    assert describe_architecture(given).sentence() == "test_vit of timm, 160 px, 3 channels, width 64, depth 6, 2 heads"
