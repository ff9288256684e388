"""Is the run healthy? Numbers that need no labels, and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ibot_cli.core.stats import SlotStats

UNIFORM = 0.98
FEW_PROTOTYPES = 0.01
PATIENCE_EPOCHS = 2


@dataclass(frozen=True, kw_only=True)
class SlotHealth:
    """Numbers of one slot over an epoch.

    Attributes:
        entropy: Mean entropy of a target over ln K; 1 is uniform, 0 is one prototype per target.
        marginal_entropy: Entropy of the mean target over ln K; 1 means that all prototypes are used equally.
        used: Prototypes that were the most likely one at least once.
        prototypes: K.
        rows: Targets behind these numbers.
    """

    entropy: float
    marginal_entropy: float
    used: int
    prototypes: int
    rows: int


def slot_health(stats: SlotStats) -> SlotHealth | None:
    """The numbers behind an epoch's sums, or None when nothing was counted."""
    rows = int(stats.rows.item())
    if rows == 0:
        return None
    num = len(stats.used)
    mean = (stats.prob_sum / stats.rows).double()
    marginal = -torch.xlogy(mean, mean).sum().item()
    return SlotHealth(
        entropy=(stats.entropy / stats.rows).item() / math.log(num),
        marginal_entropy=marginal / math.log(num),
        used=int((stats.used > 0).sum().item()),
        prototypes=num,
        rows=rows,
    )


def verdict(slot: str, health: SlotHealth, balance: str) -> str | None:
    """What is wrong with a slot's targets and which setting to change, or None when nothing is."""
    name = {"cls": "class-token", "patch": "patch"}[slot]
    temp = {"cls": "objective.teacher_temp", "patch": "objective.teacher_patch_temp"}[slot]
    if health.entropy > UNIFORM:
        lower = f"lower {temp} (and its warm-up value)"
        fix = lower if balance == "sinkhorn" else f"set objective.balance=sinkhorn, or {lower}"
        return (
            f"Collapse to uniform: the teacher's {name} targets carry {health.entropy:.1%} of the largest possible "
            f"entropy, so there is nothing to learn from. To fix it, {fix}."
        )
    effective = math.exp(health.marginal_entropy * math.log(health.prototypes))
    if effective < max(1.5, FEW_PROTOTYPES * min(health.prototypes, health.rows)):
        fix = (
            f"raise {temp}, or lower optim.lr"
            if balance == "sinkhorn"
            else f"set objective.balance=sinkhorn, raise {temp}, or lower optim.lr"
        )
        return (
            f"Collapse to few prototypes: the teacher's {name} targets use about {effective:.1f} of "
            f"{health.prototypes:,} prototypes. To fix it, {fix}."
        )
    return None


class Watch:
    """Reports a verdict once it has held for `PATIENCE_EPOCHS` epochs in a row, and again only after a recovery."""

    def __init__(self, balance: str) -> None:
        self.balance = balance
        self._bad: dict[str, int] = {}

    def look(self, slots: Mapping[str, SlotHealth | None]) -> list[str]:
        """The verdicts to show after an epoch."""
        messages = []
        for name, health in slots.items():
            text = verdict(name, health, self.balance) if health is not None else None
            self._bad[name] = self._bad.get(name, 0) + 1 if text else 0
            if text and self._bad[name] == PATIENCE_EPOCHS:
                messages.append(text)
        return messages

    def state(self) -> dict[str, int]:
        """For checkpoints."""
        return dict(self._bad)

    def restore(self, state: Mapping[str, int]) -> None:
        """The opposite of `state`."""
        self._bad = dict(state)
