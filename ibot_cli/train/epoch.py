"""Sums over one epoch: target statistics and prototype assignments. They are part of a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ibot_cli.core.stats import SlotStats, Stats
from ibot_cli.train.health import SlotHealth, slot_health


@dataclass
class EpochSums:
    """Filled step by step, read and emptied at the end of an epoch."""

    stats: Stats = field(default_factory=dict)
    assignments: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    def add_stats(self, stats: Stats, finite: Tensor) -> None:
        """Adds a step's sums on the device; those of a non-finite step count nothing."""
        for name, slot in stats.items():
            values = {key: torch.where(finite, value, torch.zeros_like(value)) for key, value in vars(slot).items()}
            added = SlotStats(**values)
            self.stats[name] = self.stats[name] + added if name in self.stats else added

    def add_assignments(self, assignments: Tensor | None, labels: Tensor | None) -> None:
        """Adds what a window read, int64 `[T, B]` each."""
        if assignments is not None and labels is not None:
            self.assignments.append(assignments.flatten().cpu())
            self.labels.append(labels.flatten().cpu())

    def health(self) -> dict[str, SlotHealth | None]:
        """The numbers of each slot."""
        return {name: slot_health(slot) for name, slot in self.stats.items()}

    def assigned(self) -> tuple[Tensor, Tensor] | None:
        """All assignments and labels of the epoch so far, or None."""
        if not self.assignments:
            return None
        return torch.cat(self.assignments), torch.cat(self.labels)

    def clear(self) -> None:
        """Begins the next epoch."""
        self.stats, self.assignments, self.labels = {}, [], []

    def state(self) -> dict[str, Any]:
        """For checkpoints."""
        pairs = self.assigned()
        return {
            "stats": {name: {k: v.cpu() for k, v in asdict(slot).items()} for name, slot in self.stats.items()},
            "assignments": None if pairs is None else pairs[0],
            "labels": None if pairs is None else pairs[1],
        }

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """The opposite of `state`."""
        self.clear()
        for name, slot in state["stats"].items():
            self.stats[name] = SlotStats(**{key: value.to(device) for key, value in slot.items()})
        self.add_assignments(state["assignments"], state["labels"])
