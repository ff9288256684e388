"""From teacher scores to target distributions: centring, or Sinkhorn-Knopp.

Both are the softmax of the scaled scores minus one number per prototype, so a target is never kept: whoever has that
offset computes the rows again, a chunk at a time.

Shapes: V views, R rows (images or patches), d bottleneck, K prototypes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

SumOverRanks = Callable[[Tensor], Tensor]

CHUNK_ELEMENTS, CHUNK_ROWS = 2**22, 256  # below so many rows, reading the prototypes takes longer than multiplying


def identity(tensor: Tensor) -> Tensor:
    """`sum_over_ranks` of a single process."""
    return tensor


def chunks(num_rows: int, views: int, prototypes: int) -> Iterator[slice]:
    """Parts of `num_rows` whose scores, `[views, part, prototypes]`, are small enough to be made at once."""
    step = max(1, max(CHUNK_ROWS, CHUNK_ELEMENTS // prototypes) // views)
    return (slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step))


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores over temperature, `[V, R, K]`, that exist only where they are asked for.

    Attributes:
        rows: Bottlenecks divided by the temperature, `[V, R, d]`, in the type of the product.
        weight: Prototypes, `[K, d]`, in the same type.
    """

    rows: Tensor
    weight: Tensor

    @classmethod
    def of(cls, bottlenecks: Tensor, weight: Tensor, temp: float) -> Scores:
        """Scores of unit vectors `[V, R, d]`; autocast decides the type of the product."""
        device = bottlenecks.device.type
        enabled = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if enabled else bottlenecks.dtype
        return cls(rows=(bottlenecks / temp).to(dtype), weight=weight.to(dtype))

    def part(self, rows: slice) -> Tensor:
        """The scores of some rows, `[V, part, K]`."""
        with torch.autocast(self.rows.device.type, enabled=False):
            return self.rows[:, rows] @ self.weight.t()


def center_offset(center: Tensor, temp: float) -> Tensor:
    """Offset `[K]` of centring.

    Args:
        center: Moving average of the scores, `[1, K]`.
        temp: Teacher temperature, > 0.

    Source:
        DINO (arXiv 2104.14294), equation 4; iBOT centres patches separately.
    """
    return (center / temp).flatten()


@torch.no_grad()
def sinkhorn_offset(
    scores: Scores, counts: Tensor, iterations: int = 3, sum_over_ranks: SumOverRanks = identity
) -> Tensor:
    """Offset `[K]` of Sinkhorn-Knopp: targets whose columns (prototypes) are used equally.

    Alternating column and row normalisation scales the exponentiated scores by one factor per row and one per column;
    the softmax finds the row's factor again, so the columns' logarithms are all that is kept.

    Args:
        scores: Teacher scores; R may be 0.
        counts: 1 for rows that count, 0 for padding, `[R]`.
        iterations: Alternations of column and row normalisation.
        sum_over_ranks: Sums a tensor over processes, so that the balance holds over the whole batch.

    Source:
        SwAV (arXiv 2006.09882), as used for iBOT's targets in DINOv2 (arXiv 2304.07193). The row maximum is
        subtracted first: it changes only the starting point, and small temperatures no longer overflow. A column whose
        entries are all too small for a float stays as it is.
    """
    views, num_rows, _ = scores.rows.shape
    offset = counts.new_zeros(len(scores.weight))
    tiny = torch.finfo(offset.dtype).tiny
    for iteration in range(iterations):
        columns = torch.zeros_like(offset)
        for rows in chunks(num_rows, views, len(offset)):
            table = scores.part(rows) - offset
            if iteration:
                table = torch.softmax(table, dim=-1)
            else:
                table = table.sub_(table.amax(dim=-1, keepdim=True)).exp_()
            columns += (counts[rows, None] * table).sum((0, 1))
        columns = sum_over_ranks(columns)
        offset = offset + torch.where(columns > tiny, columns, 1.0).log()
    return offset
