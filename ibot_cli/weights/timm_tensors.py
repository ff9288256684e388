"""Tensors of timm's vision transformers in the names of `ibot_cli.core.vit`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ibot_cli.weights.layer_scale import without_layer_scale


def in_our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a timm ViT or Swin as ours; what ours does not have keeps its name.

    timm's names are ours but for registers. Layer scale becomes a part of the layers that it scales. Where class token
    and registers have no position it is zero; where registers have one it is added to them.

    Args:
        tensors: A state dict of timm's model, without a prefix.
    """
    ours = without_layer_scale(tensors)
    positions, registers = ours.get("pos_embed"), ours.pop("reg_token", None)
    if positions is None or "cls_token" not in ours:
        return dict(tensors)
    if math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:  # patches only
        ours["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    elif registers is not None:
        end = 1 + registers.shape[1]
        registers = registers + positions[:, 1:end]
        ours["pos_embed"] = torch.cat([positions[:, :1], positions[:, end:]], dim=1)
    return ours if registers is None else ours | {"register_tokens": registers}
