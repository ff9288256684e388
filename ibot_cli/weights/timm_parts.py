"""Models of timm as networks of ours, where both compute the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ibot_cli.errors import WeightsError
from ibot_cli.weights.fill import unfilled
from ibot_cli.weights.norm_epsilon import OURS, swin_at_epsilon
from ibot_cli.weights.shapes import BackboneShape, backbone_shape
from ibot_cli.weights.timm_models import TimmBackbone

_SAME = 1e-4  # largest difference of tokens over their largest value that counts as rounding


def our_network(network: TimmBackbone, image_size: int) -> tuple[BackboneShape, dict[str, Tensor]] | None:
    """The shape and the tensors of our network that computes the same tokens as a filled model of timm.

    Layer scale and registers keep their place, a Swin's other epsilon of the norms goes into the weights. What cannot
    be had so (pooling of a classifier, other layers) makes the tokens differ.

    Args:
        network: In evaluation mode.
        image_size: Side of the images that it was built for, in pixels.

    Returns:
        None where there is no such network.
    """
    model: Any = network.model
    tensors = _our_names(model)
    named = {f"backbone.{name}": value for name, value in tensors.items()}
    try:
        shape = backbone_shape(named, {}, _heads(model))
        shape = replace(shape, image_size=image_size)
        ours = unfilled(shape.build).eval()
        ours.load_state_dict(tensors)
    except (WeightsError, RuntimeError, ValueError):
        return None
    images = torch.rand(1, shape.channels, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = network(images), ours(images)
    found = found[:, : expected.shape[1]]  # a model without class token gives its pooled feature alone
    same = expected.shape == found.shape and (expected - found).abs().max() <= _SAME * expected.abs().max()
    return (shape, tensors) if same else None


def _our_names(model: Any) -> dict[str, Tensor]:
    tensors = _in_our_names(model.state_dict())
    if any(name.startswith("layers.") for name in tensors):
        return swin_at_epsilon(tensors, float(getattr(model.norm, "eps", OURS)), OURS)
    for name in [name for name in tensors if name.endswith(".attn.qkv.weight")]:
        tensors.setdefault(f"{name.removesuffix('weight')}bias", torch.zeros_like(tensors[name][:, 0]))
    return tensors


def _in_our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a timm ViT or Swin as ours; what ours does not have keeps its name.

    timm's names are ours but for registers. Where class token and registers have no position it is zero; where
    registers have one it is added to them.

    Args:
        tensors: A state dict of timm's model, without a prefix.
    """
    ours = dict(tensors)
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


def _heads(model: Any) -> int | None:
    blocks = getattr(model, "blocks", None)
    heads = getattr(getattr(blocks[0], "attn", None), "num_heads", None) if blocks is not None and len(blocks) else None
    return heads if isinstance(heads, int) else None
