"""What `ibot finetune` decides by itself, with its reasons."""

from __future__ import annotations

from ibot_cli.train.choices import SMALL_SET, Choice
from ibot_cli.train.finetune.request import DEMO_DATA, DEMO_PRESET, SMALL_PRESET, FinetuneRequest
from ibot_cli.weights.shapes import BackboneShape

# Published recipes by token width of the ViT that they are for.
BY_WIDTH = {384: "finetune_vits16", 768: "finetune_vitb16", 1024: "finetune_vitl16"}
WIDTHS = {"vit_tiny": 192, "vit_small": 384, "vit_base": 768, "vit_large": 1024}


def choose_preset(request: FinetuneRequest, num_images: int, shape: BackboneShape) -> Choice:
    """The preset of a new run: the one that was named, else what suits the data and the network.

    Args:
        request: What was asked for.
        num_images: Labelled training images before any choice of labels.
        shape: Of the backbone.
    """
    if request.preset is not None:
        return request.preset, "--preset"
    if request.data == DEMO_DATA:
        return DEMO_PRESET, "made for these images"
    if num_images < SMALL_SET:
        return SMALL_PRESET, f"{num_images:,} training images are fewer than {SMALL_SET:,}"
    width = shape.width or WIDTHS.get(shape.arch, 384)
    nearest = min(BY_WIDTH, key=lambda known: abs(known - width))
    return BY_WIDTH[nearest], f"{num_images:,} training images, and a network of width {width}"
