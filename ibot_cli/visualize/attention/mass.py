"""How concentrated an attention map is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDING = 1e-6  # of the whole mass: what float32 sums may be off


@dataclass(frozen=True, kw_only=True)
class HeadFigures:
    """What one attention map comes to.

    Attributes:
        head: Its number, from 1.
        on_patches: Attention that falls on patches, 0..1; the rest is on the class token or on padding.
        patches_for_mass: Size of the smallest set of patches that holds the asked share of it.
        share_for_mass: The same over the number of patches.
        entropy: Of the attention over patches, over that of an even spread; 0 is a single patch, 1 is even.
    """

    head: int
    on_patches: float
    patches_for_mass: int
    share_for_mass: float
    entropy: float


def mass_mask(maps: Tensor, mass: float) -> Tensor:
    """The smallest set of patches that holds a share of each map's sum.

    Args:
        maps: `[..., rows, columns]`, not negative.
        mass: The share, above 0 and at most 1; of equal patches the first in reading order is taken first.

    Returns:
        bool, of the same shape; empty where a map is 0 everywhere.

    Source:
        The `threshold` of the attention figures of iBOT (arXiv 2111.07832) and DINO (arXiv 2104.14294).
    """
    flat = maps.flatten(-2).double()
    ordered, places = flat.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    taken = (before < (mass - _ROUNDING) * flat.sum(-1, keepdim=True)) & (ordered > 0)
    held: Tensor = torch.zeros_like(taken).scatter(-1, places, taken)
    return held.reshape(maps.shape)


def head_figures(maps: Tensor, mass: float) -> tuple[HeadFigures, ...]:
    """One entry per head of `[h, rows, columns]`; `mass` as for `mass_mask`."""
    num_patches = maps[0].numel()
    counts = mass_mask(maps, mass).flatten(1).sum(1).tolist()
    flat = maps.flatten(1).double()
    sums = flat.sum(1)
    shares = flat / sums.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
    entropies = torch.special.entr(shares).sum(1) / max(math.log(num_patches), 1e-9)
    return tuple(
        HeadFigures(
            head=head,
            on_patches=float(sums[head - 1]),
            patches_for_mass=count,
            share_for_mass=count / num_patches,
            entropy=float(entropies[head - 1]),
        )
        for head, count in enumerate(counts, start=1)
    )
