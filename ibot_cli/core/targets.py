"""From teacher scores to target distributions: centring, or Sinkhorn-Knopp.

Both are the softmax of the scaled scores minus one number per prototype, so a target is never kept: whoever has that
offset computes the rows again, a chunk at a time.

Shapes: V views, R rows (images or patches), d bottleneck, K prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SumOverRanks = Callable[[Tensor], Tensor]

CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**24}  # scores of a chunk; five numbers are held for each
CHUNK_ROWS = 256  # of fewer rows the products are slow: they read all prototypes for each chunk


def identity(tensor: Tensor) -> Tensor:
    """`sum_over_ranks` of a single process."""
    return tensor


def chunks(num_rows: int, views: int, prototypes: int, device: torch.device) -> Iterator[slice]:
    """Parts of `num_rows` of one length, so that compiled code meets one shape; the last may reach beyond the end.

    Their scores, `[views, part, prototypes]`, are few enough to be made at once.
    """
    most = max(CHUNK_ROWS, CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cpu"]) // prototypes)
    number = math.ceil(num_rows / max(1, most // views))
    size = math.ceil(num_rows / max(1, number))
    return (slice(index * size, (index + 1) * size) for index in range(number))


def padded(rows: Tensor, part: slice, dim: int) -> Tensor:
    """A part of the rows in dimension `dim`, the last or the one before, with zeros for those beyond the end."""
    found = rows[..., part, :] if dim == -2 else rows[..., part]
    missing = part.stop - part.start - found.shape[dim]
    return functional.pad(found, (0, 0) * (-1 - dim) + (0, missing)) if missing else found


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
        """The scores of some rows, `[V, part, K]`; 0 for rows beyond the end."""
        with torch.autocast(self.rows.device.type, enabled=False):
            picked = padded(self.rows, rows, -2)
            scores: Tensor = picked.flatten(0, 1) @ self.weight.t()
            return scores.view(*picked.shape[:2], len(self.weight))


class Taught(NamedTuple):
    """What one slot needs of the teacher.

    Attributes:
        rows: Unit vectors, `[V, B, d]` of class tokens or `[1, M, d]` of masked patches.
        weights: Of the rows' losses, `[B]` or `[M]`; 0 for padding.
        total: Sum of the unit vectors that the centre follows, `[d]`.
        total_rows: Their number; 0 where no centre is kept.
    """

    rows: Tensor
    weights: Tensor
    total: Tensor
    total_rows: int


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
        for rows in chunks(num_rows, views, len(offset), offset.device):
            table = scores.part(rows) - offset
            if iteration:
                table = torch.softmax(table, dim=-1)
            else:
                table = table.sub_(table.amax(dim=-1, keepdim=True)).exp_()
            columns += table.flatten(0, 1).t() @ padded(counts, rows, -1).repeat(views)
        columns = sum_over_ranks(columns)
        offset = offset + torch.where(columns > tiny, columns, 1.0).log()
    return offset
