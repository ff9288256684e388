"""From teacher scores to target distributions: centring, or Sinkhorn-Knopp.

Shapes: R rows (images or patches), K prototypes. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SumOverRanks = Callable[[Tensor], Tensor]


def identity(tensor: Tensor) -> Tensor:
    """`sum_over_ranks` of a single process."""
    return tensor


def centered_target(logits: Tensor, center: Tensor, temp: float) -> Tensor:
    """Softmax of the centred scores.

    Args:
        logits: Teacher scores, `[..., K]`, before temperature.
        center: Moving average of the scores, broadcastable to `logits`.
        temp: Teacher temperature, > 0.

    Returns:
        float32 `[..., K]`, rows sum to 1.

    Source:
        DINO (arXiv 2104.14294), equation 4; iBOT centres patches separately.
    """
    return torch.softmax((logits.float() - center) / temp, dim=-1)


def sinkhorn_target(
    logits: Tensor, temp: float, iterations: int = 3, sum_over_ranks: SumOverRanks = identity
) -> Tensor:
    """Sinkhorn-Knopp: targets whose columns (prototypes) are used equally.

    Args:
        logits: Teacher scores, `[R, K]`, before temperature; R may be 0.
        temp: Teacher temperature, > 0.
        iterations: Alternations of column and row normalisation.
        sum_over_ranks: Sums a tensor over processes, so that the balance holds over the whole batch.

    Returns:
        float32 `[R, K]`, rows sum to 1.

    Source:
        SwAV (arXiv 2006.09882), as used for iBOT's targets in DINOv2 (arXiv 2304.07193). The row maximum is
        subtracted first: it changes only the starting point, and small temperatures no longer overflow.
    """
    scores = logits.float() / temp
    weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True)) if scores.numel() else scores
    tiny = torch.finfo(torch.float32).tiny
    for _ in range(iterations):
        columns = sum_over_ranks(weights.sum(dim=0))
        weights = weights / columns.clamp(min=tiny)
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=tiny)
    return weights
