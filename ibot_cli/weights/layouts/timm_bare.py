"""Which model of timm a bare state dict fills, by names and shapes alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ibot_cli.core import swin
from ibot_cli.weights.shapes import backbone_shape

# Names of timm's ViT and Swin that neither the authors' nor our networks have.
_ONLY_TIMM = re.compile(r"fc_norm\.weight|reg_token|blocks\.0\.ls1\.gamma|head\.fc\.weight")
_CLASSIFIER = re.compile(r"head(_dist|\.fc)?\.(weight|bias)")


def is_bare(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors without any description are of timm's ViT or Swin, and of nobody else's."""
    network = "blocks.0.norm1.weight" in tensors or "layers.0.blocks.0.norm1.weight" in tensors
    return network and any(_ONLY_TIMM.fullmatch(name) for name in tensors)


def bare_model(tensors: Mapping[str, Tensor], heads: int | None) -> tuple[str, dict[str, Any]]:
    """Name and arguments of `timm.create_model` for such tensors.

    Args:
        tensors: In timm's names.
        heads: Of a ViT's attention when the caller knows them.

    Raises:
        WeightsError: It is neither a ViT nor a Swin, or its attention heads cannot be known.
    """
    inside = {f"backbone.{name}": value for name, value in tensors.items() if not _CLASSIFIER.fullmatch(name)}
    registers, positions = tensors.get("reg_token"), tensors.get("pos_embed")
    num_registers = 0 if registers is None else registers.shape[1]
    without_class = positions is not None and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]
    shape = backbone_shape(inside, {}, heads)
    common = {"in_chans": shape.channels, "num_classes": 0}
    if positions is None:
        size = shape.window_size * swin.STRIDE  # the smallest without padding in any stage, as published ones have it
        named = swin.SIZES[shape.arch]
        return f"{shape.arch}_patch4_window7_224", common | {
            "window_size": shape.window_size,
            "img_size": size,
            "embed_dim": named.width,
            "depths": named.depths,
            "num_heads": named.heads,
        }
    patches = positions.shape[1] - (0 if without_class else 1 + num_registers)
    hidden = tensors.get("blocks.0.mlp.fc1.weight")
    return "vit_small_patch16_224", common | {
        "img_size": math.isqrt(patches) * shape.patch_size,
        "patch_size": shape.patch_size,
        "embed_dim": shape.width,
        "depth": shape.depth,
        "num_heads": shape.heads,
        "mlp_ratio": 4 if hidden is None else len(hidden) / (shape.width or 1),
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,
        "reg_tokens": num_registers,
        "no_embed_class": without_class,
        "global_pool": "avg" if "fc_norm.weight" in tensors else "token",
    }
