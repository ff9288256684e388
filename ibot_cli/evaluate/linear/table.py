"""Figures of many heads while a sweep trains them, in one or several processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ibot_cli import distributed
from ibot_cli.evaluate.linear.bank import Scores

NAMES = ("finite", "holdout_top1", "holdout_loss", "test_top1", "test_top5", "best_top1", "best_epoch")


@dataclass
class ScoreTable:
    """Figures by head; 0 for those that another process trains.

    Attributes:
        values: Name -> float64 `[H]`. `finite` is 1 for heads that did not diverge; `best_top1` is the largest test
            accuracy after any epoch, and `best_epoch` the number of epochs after which it came.
        correct: Head -> bool `[m]`, whether each test image is right, for the heads of this process.
    """

    values: dict[str, Tensor]
    correct: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def empty(cls, num_heads: int) -> ScoreTable:
        """No figures yet."""
        return cls({name: torch.zeros(num_heads, dtype=torch.float64) for name in NAMES})

    def after_epoch(self, places: Sequence[int], test: Scores, epoch: int) -> None:
        """Note the test accuracies after an epoch."""
        index, top1 = torch.tensor(places), test.top1.double().mean(dim=0)
        better = index[top1 > self.values["best_top1"][index]]
        self.values["best_top1"][index] = torch.maximum(top1, self.values["best_top1"][index])
        self.values["best_epoch"][better] = epoch

    def at_end(self, places: Sequence[int], finite: Tensor, holdout: Scores | None, test: Scores) -> None:
        """Note the figures after the last epoch."""
        found = {"finite": finite.double().cpu(), "test_top1": _mean(test.top1), "test_top5": _mean(test.top5)}
        if holdout is not None:
            loss = holdout.loss
            found |= {"holdout_top1": _mean(holdout.top1), "holdout_loss": loss.nan_to_num(0.0, 0.0, 0.0)}
            found["finite"] = found["finite"] * loss.isfinite()
        for name, values in found.items():
            self.values[name][torch.tensor(places)] = values
        self.correct |= {place: test.top1[:, column] for column, place in enumerate(places)}

    def shared(self) -> ScoreTable:
        """The same with the heads of all processes."""
        return ScoreTable(
            {name: distributed.sum_over_ranks(value) for name, value in self.values.items()}, self.correct
        )


def _mean(hits: Tensor) -> Tensor:
    return hits.double().mean(dim=0)
