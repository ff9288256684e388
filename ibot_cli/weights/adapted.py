"""A backbone for images of another size or with other channels than it was trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ibot_cli.core.vit import ViT
from ibot_cli.errors import WeightsError
from ibot_cli.weights.trainable import Trainable, at_image_size

_PROJECTION, _BIAS = "patch_embed.proj.weight", "patch_embed.proj.bias"

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, of images in 0..1."""


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A backbone that takes other images than before.

    Attributes:
        parts: The backbone.
        changes: What had to be changed, for people; empty where nothing was.
    """

    parts: Trainable
    changes: tuple[str, ...]


def adapted(
    parts: Trainable, *, channels: int, image_size: int, seen: Statistics | None = None, shown: Statistics | None = None
) -> Adapted:
    """The backbone for images `[B, channels, image_size, image_size]`.

    Positions are resized as the network itself does it for such images, so that it computes what it did. From 3
    channels to 1 the patch embedding is summed over the channels, so that a grey image gives what its three equal
    channels gave; from 1 to 3 it is spread evenly over them. It also takes in how the two normalise images.

    From 1 or 3 channels to another number C it is repeated in order (red, green, blue, red, ...) until there are C,
    and scaled by the old number over C, as timm does it with `in_chans`: channels that are alike after normalisation
    give what they gave before. How the two normalise images is not taken in: each channel is centred by its own
    statistics.

    Args:
        parts: The backbone.
        channels: Of the new images.
        image_size: Their side.
        seen: How the backbone's images were normalised; used where the channels change.
        shown: How the new images are normalised.

    Raises:
        WeightsError: The backbone has neither 1 nor 3 channels, and the images another number.
        UsageError: The size is no multiple of the stride.
    """
    before = parts.shape
    changes = []
    if channels != before.channels:
        parts = _with_channels(parts, channels, seen, shown)
        how = ", repeated and scaled" if channels not in (1, 3) else ""
        changes.append(f"patch embedding {before.channels} -> {_counted(channels)}{how}")
    if image_size != before.image_size:
        old, new = before.image_size // before.patch_size, image_size // before.patch_size
        resized = at_image_size(parts, image_size)
        if "pos_embed" in parts.tensors:
            resized = replace(resized, tensors={**resized.tensors, "pos_embed": _positions(parts, new)})
            changes.append(f"positions {old}x{old} -> {new}x{new}")
        else:
            changes.append(f"windows laid out for {image_size} pixels")
        parts = resized
    return Adapted(parts=parts, changes=tuple(changes))


@torch.no_grad()
def _positions(parts: Trainable, side: int) -> Tensor:
    """Position embeddings `[1, 1 + side * side, D]` by the network's own interpolation."""
    with torch.device("meta"):
        network = parts.shape.build()
    assert isinstance(network, ViT)
    network.pos_embed = nn.Parameter(parts.tensors["pos_embed"], requires_grad=False)
    return network.positions(side, side).contiguous()


def _with_channels(parts: Trainable, channels: int, seen: Statistics | None, shown: Statistics | None) -> Trainable:
    found = parts.shape.channels
    if found not in (1, 3):
        raise WeightsError(
            f"The weights see images with {_counted(found)}, the run has {_counted(channels)}.",
            "Only weights for 1 or 3 channels can be turned into others.",
        )
    tensors = dict(parts.tensors)
    weight, bias = tensors[_PROJECTION].double(), tensors[_BIAS].double()
    if channels not in (1, 3):
        repeated = weight[:, torch.arange(channels) % found] * (found / channels)
        tensors[_PROJECTION] = repeated.float().contiguous()
        return Trainable(shape=replace(parts.shape, channels=channels), tensors=tensors)
    if channels == 3:
        weight = weight.repeat(1, 3, 1, 1) / 3
    if seen is not None and shown is not None:
        weight, bias = _renormalised(weight, bias, seen, shown)
    weight = weight.sum(dim=1, keepdim=True) if channels == 1 else weight
    tensors[_PROJECTION], tensors[_BIAS] = weight.float().contiguous(), bias.float()
    return Trainable(shape=replace(parts.shape, channels=channels), tensors=tensors)


def _renormalised(weight: Tensor, bias: Tensor, seen: Statistics, shown: Statistics) -> tuple[Tensor, Tensor]:
    """The layer that gives for images normalised anew what it gave before; exact, because it pads nothing.

    Args:
        weight: `[D, 3, P, P]`.
        bias: `[D]`.
        seen: Of 1 or 3 channels; that of 1 holds for all three.
        shown: Likewise.
    """
    mean, std, new_mean, new_std = (
        torch.tensor(values, dtype=weight.dtype).expand(3).reshape(1, 3, 1, 1) for values in (*seen, *shown)
    )
    return weight * (new_std / std), bias + (weight * (new_mean - mean) / std).sum(dim=(1, 2, 3))


def _counted(channels: int) -> str:
    return f"{channels} channel" if channels == 1 else f"{channels} channels"
