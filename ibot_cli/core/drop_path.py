"""Stochastic depth by sub-batch: an image that a residual branch drops is left out of it, not multiplied by 0.

Shapes: B images, b those of them that a branch is computed for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Drop probability of the last block from which sub-batches pay; see benchmarks/techniques.md.
SMALLEST_RATE = 0.2


class Branch(NamedTuple):
    """What a residual branch is computed for.

    Attributes:
        images: int64 `[b]`, positions in the batch, ascending.
        factors: float32 `[b]`, what their branch is multiplied by.
    """

    images: Tensor
    factors: Tensor


@dataclass(frozen=True, kw_only=True)
class SubBatches:
    """The same draw of `drop_path_factors` twice: as factors, and as the images that are not dropped.

    Attributes:
        factors: float32 `[num_blocks, 2, B]`.
        branches: Two of each block. A branch that all images drop is computed for the first one, with its factor 0,
            so that parameters have a gradient as they have without sub-batches.
    """

    factors: Tensor
    branches: tuple[tuple[Branch, Branch], ...]

    @classmethod
    def of(cls, factors: Tensor, device: torch.device) -> SubBatches:
        """From `[num_blocks, 2, B]` on the CPU: the host has to know how many images each branch has."""
        kept = factors > 0
        kept[..., 0] |= ~kept.any(dim=-1)
        counts = kept.sum(dim=-1).flatten().tolist()
        images, values = (x.to(device, non_blocking=True) for x in (kept.nonzero()[:, 2], factors[kept]))
        found = [Branch(*pair) for pair in zip(images.split(counts), values.split(counts), strict=True)]
        branches = tuple(zip(found[::2], found[1::2], strict=True))
        return cls(factors=factors.to(device, non_blocking=True), branches=branches)


DropPath = Tensor | SubBatches


def placed(factors: Tensor | None, rate: float, device: torch.device, *, whole: bool = False) -> DropPath | None:
    """A step's factors `[num_blocks, 2, B]` on the device, as sub-batches where these pay.

    Args:
        factors: On the CPU, or None for no drop path.
        rate: Drop probability of the last block.
        device: Of the network.
        whole: Whether every branch must be computed for all images, as compiled blocks need it.
    """
    if factors is None:
        return None
    if whole or rate < SMALLEST_RATE:
        return factors.to(device, non_blocking=True)
    return SubBatches.of(factors, device)


def plain_factors(drop_path: DropPath | None) -> Tensor | None:
    """`[num_blocks, 2, B]`, for what knows no sub-batches."""
    return drop_path.factors if isinstance(drop_path, SubBatches) else drop_path


def add_branch(x: Tensor, branch: Tensor, kept: Branch) -> Tensor:
    """`x` of `[B, ...]` with a branch `[b, ...]` of some images added."""
    added: Tensor = _AddBranch.apply(x, branch, kept.images, kept.factors)
    return added


class _AddBranch(torch.autograd.Function):
    """`index_add` that does not keep what it adds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, images: Tensor, factors: Tensor) -> Tensor:
        factors = factors.reshape(-1, *[1] * (x.ndim - 1))
        ctx.save_for_backward(images, factors)
        ctx.dtype = branch.dtype
        return x.index_add(0, images, (branch * factors).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        images, factors = ctx.saved_tensors
        return grads[0], (grads[0].index_select(0, images) * factors).to(ctx.dtype), None, None
