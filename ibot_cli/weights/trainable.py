"""Loaded weights as something that can be trained further: the shape of a backbone and the tensors that fill it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from timm.models.beit import Beit
from torch import Tensor
from torch.nn import functional

from ibot_cli.core import swin
from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.weights.load import LoadedBackbone
from ibot_cli.weights.shapes import BackboneShape
from ibot_cli.weights.timm_models import TimmBackbone
from ibot_cli.weights.timm_parts import our_network


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """A backbone in parts.

    Attributes:
        shape: What builds it, without a mask token.
        tensors: Its state; no `norm.*` where mean pooling had taken the final norm away.
    """

    shape: BackboneShape
    tensors: Mapping[str, Tensor]


def trainable(loaded: LoadedBackbone) -> Trainable:
    """The backbone of loaded weights in the names of `ibot_cli.core`.

    A model of timm is taken apart only if our network with its tensors computes the same tokens.

    Raises:
        WeightsError: A model of timm with other layers than a plain ViT, with registers or without, or Swin.
    """
    if loaded.shape is None:
        return _from_timm(loaded)
    backbone = loaded.backbone if loaded.classifier is None else loaded.classifier.backbone
    tensors = {name: value for name, value in backbone.state_dict().items() if name != "masked_embed"}
    return Trainable(shape=loaded.shape, tensors=tensors)


def at_image_size(parts: Trainable, image_size: int) -> Trainable:
    """The same for images of another side, position embeddings resized bicubically.

    A Swin has no positions; its windows are laid out anew.

    Raises:
        UsageError: The side is no multiple of the stride.

    Source:
        The fine-tuning code of BEiT (arXiv 2106.08254): bicubic, corners not aligned.
    """
    shape = parts.shape
    if image_size == shape.image_size:
        return parts
    stride = swin.STRIDE if shape.arch in swin.SIZES else shape.patch_size
    if image_size % stride:
        near = max(stride, round(image_size / stride) * stride)
        raise UsageError(
            f"model.image_size = {image_size} is no multiple of {stride}, the stride of the network.",
            f"Use for example {near}.",
        )
    tensors = dict(parts.tensors)
    if "pos_embed" in tensors:
        tensors["pos_embed"] = resize_positions(tensors["pos_embed"], image_size // stride)
    return Trainable(shape=replace(shape, image_size=image_size), tensors=tensors)


def resize_positions(positions: Tensor, side: int) -> Tensor:
    """Position embeddings `[1, 1 + n * n, D]` as `[1, 1 + side * side, D]`; the class token's stays as it is."""
    native = round((positions.shape[1] - 1) ** 0.5)
    if side == native:
        return positions
    grid = positions[:, 1:].reshape(1, native, native, -1).permute(0, 3, 1, 2).float()
    resized = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    patches = resized.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return torch.cat([positions[:, :1], patches], dim=1)


def _from_timm(loaded: LoadedBackbone) -> Trainable:
    """Our network with timm's tensors, where it computes the same tokens."""
    model = loaded.backbone
    if isinstance(model, TimmBackbone) and _has_relative_bias(model):
        raise WeightsError(
            f"{loaded.description} has a relative position bias, which the networks that ibot trains do not have.",
            "BEiT weights can be evaluated and shown; train from a ViT with learned positions, or a Swin.",
        )
    found = our_network(model, loaded.image_size) if isinstance(model, TimmBackbone) else None
    if found is None:
        raise WeightsError(
            f"{loaded.description} has other layers than the ViT and Swin networks that ibot can train.",
            "Use a plain ViT or Swin, for example timm:vit_small_patch16_224.dino.",
        )
    shape, tensors = found
    return Trainable(shape=replace(shape, mask_token=False), tensors=tensors)


def _has_relative_bias(network: TimmBackbone) -> bool:
    return isinstance(network.model, Beit) and any("relative_position" in name for name in network.model.state_dict())
