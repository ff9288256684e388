"""A vision transformer of one block whose attention is known, whatever the query is.

The first entry of a token is the brightness of its patch; one entry per place of the native grid says where it is.
Two large entries of opposite sign keep the layer norm from changing their proportions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from PIL import Image, ImageDraw

from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.vit import ViT
from ibot_cli.weights.load import LoadedBackbone
from tests.visualize.networks import wrapped

GRID = 4
SIDE = 16
WIDTH, PLACES = 48, 8
ANCHOR, STRENGTH = 20.0, 60.0
Wish = Literal["bright", "dark", "nothing"] | int  # what a head attends to; a number is a place of the native grid


def looking_at(wishes: Sequence[Wish], *, channels: int = 1) -> LoadedBackbone:
    """A ViT for 16 x 16 pixels in 4 x 4 patches whose heads attend to what is asked."""
    with torch.random.fork_rng(devices=[]):
        backbone = build_backbone(
            arch="vit_tiny", image_size=SIDE, channels=channels, patch_size=4, width=WIDTH, depth=1, heads=len(wishes)
        )
    assert isinstance(backbone, ViT)
    with torch.no_grad():
        for parameter in (*backbone.patch_embed.parameters(), *backbone.blocks[0].attn.qkv.parameters()):
            parameter.zero_()
        backbone.patch_embed.proj.weight[0] = 1 / (16 * channels)
        backbone.pos_embed.zero_()
        backbone.pos_embed[..., 1], backbone.pos_embed[..., 2] = ANCHOR, -ANCHOR
        backbone.pos_embed[0, 1:, PLACES : PLACES + GRID**2] = torch.eye(GRID**2)
        backbone.cls_token.zero_()
        size = WIDTH // len(wishes)
        for head, wish in enumerate(wishes):
            backbone.blocks[0].attn.qkv.bias[head * size] = size**0.5  # the query, the same for every token
            key = backbone.blocks[0].attn.qkv.weight[WIDTH + head * size]
            if isinstance(wish, int):
                key[PLACES + wish] = STRENGTH
            elif wish != "nothing":
                key[0] = STRENGTH if wish == "bright" else -STRENGTH
    return wrapped(backbone.eval())


def spotted(spots: Sequence[tuple[int, int]], *, rows: int = 4, columns: int = 4, mode: str = "L") -> Image.Image:
    """A dark image with white patches of 4 pixels at rows and columns."""
    image = Image.new(mode, (4 * columns, 4 * rows), "#202020")
    draw = ImageDraw.Draw(image)
    for row, column in spots:
        draw.rectangle((4 * column, 4 * row, 4 * column + 3, 4 * row + 3), fill="white")
    return image
