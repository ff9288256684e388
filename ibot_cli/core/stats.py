"""Sums over the targets of a step, for centres and monitoring."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ibot_cli.core.targets import SumOverRanks


@dataclass(frozen=True, kw_only=True)
class SlotStats:
    """Sums over the targets of one slot; a row is an image view (cls) or a masked patch (patch).

    Attributes:
        logit_sum: Sum of the teacher's scores over `logit_rows` rows, `[K]`: all image views, or *all* patches.
        logit_rows: Rows behind `logit_sum`; 0 where no centre is kept.
        prob_sum: Sum of the target distributions, `[K]`.
        used: How often each prototype was the most likely one, `[K]`.
        entropy: Sum of the targets' entropies, in nats.
        rows: Rows behind the last three.
    """

    logit_sum: Tensor
    logit_rows: Tensor
    prob_sum: Tensor
    used: Tensor
    entropy: Tensor
    rows: Tensor

    @classmethod
    def zero(cls, num: int, device: torch.device | str = "cpu") -> SlotStats:
        """The sum of nothing, for `num` prototypes."""
        sizes = {"logit_sum": (num,), "prob_sum": (num,), "used": (num,)}
        return cls(**{f.name: torch.zeros(sizes.get(f.name, ()), device=device) for f in fields(cls)})

    def __add__(self, other: SlotStats) -> SlotStats:
        return SlotStats(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def summed(self, sum_over_ranks: SumOverRanks) -> SlotStats:
        """The sum over all processes, with one exchange."""
        values = [getattr(self, f.name) for f in fields(self)]
        flat = sum_over_ranks(torch.cat([v.reshape(-1) for v in values]))
        parts = flat.split([v.numel() for v in values])
        return SlotStats(**{f.name: p.view_as(v) for f, p, v in zip(fields(self), parts, values, strict=True)})


Stats = dict[str, SlotStats]
"""Slot name to its sums; only the slots in use."""
