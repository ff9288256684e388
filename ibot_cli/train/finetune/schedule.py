"""Learning rate and decay of a fine-tuning as a function of the step."""

from __future__ import annotations

from dataclasses import dataclass

from ibot_cli.config.finetune import FinetuneOptimConfig
from ibot_cli.core.schedules import warmup_cosine


@dataclass(frozen=True, kw_only=True)
class FinetuneSchedule:
    """Linear warm-up from 0, then a cosine per step.

    Attributes:
        epochs: Length of the run.
        steps_per_epoch: Updates per epoch.
        batch_size: Global batch.
        optim: Settings, the warm-up within the run.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    optim: FinetuneOptimConfig

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def peak(self) -> float:
        """Largest learning rate of the head, scaled to the batch unless `lr_batch_size` is 0."""
        of = self.optim.lr_batch_size
        return self.optim.lr * (self.batch_size / of if of else 1.0)

    def lr(self, step: int) -> float:
        """The head's learning rate in update number `step` (from 0)."""
        return warmup_cosine(
            step,
            total=self.total_steps,
            warmup=self.optim.warmup_epochs * self.steps_per_epoch,
            peak=self.peak,
            final=self.optim.min_lr,
        )


def fitted_warmup(warmup: int, epochs: int, reference_epochs: int) -> int:
    """A warm-up within the run; one that does not fit keeps its share of the recipe's length."""
    if warmup < epochs:
        return warmup
    return min(epochs - 1, max(1, round(warmup * epochs / max(reference_epochs, warmup))))
