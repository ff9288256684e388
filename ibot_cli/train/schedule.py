"""All schedules of a run as one function of the step."""

from __future__ import annotations

from dataclasses import dataclass

from ibot_cli.config.schema import ObjectiveConfig, OptimConfig
from ibot_cli.core.objective import Now
from ibot_cli.core.schedules import cosine, teacher_temp, warmup_cosine

# Times over that the teacher's head is renewed while it learns alone; over an epoch of ImageNet in batches of 1024 this
# is the published momentum of 0.996.
HEAD_SPANS = 4


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Values at any step; see `Now`.

    Attributes:
        epochs: Length of the run.
        steps_per_epoch: Updates per epoch.
        batch_size: Global batch; the peak learning rate is `optim.lr * batch_size / 256`.
        mask_start_epoch: The patch temperature waits for it.
        freeze_backbone_epochs: Only the head learns before this epoch; see `_learning_rate`.
        head_lr: Its rate meanwhile, as `optim.lr`; None is the same.
        optim: Optimiser settings, durations within the run.
        objective: Temperatures and momentum.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    mask_start_epoch: int
    optim: OptimConfig
    objective: ObjectiveConfig
    freeze_backbone_epochs: int = 0
    head_lr: float | None = None

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        return self.epochs * self.steps_per_epoch

    def now(self, step: int) -> Now:
        """The values that update number `step` (from 0) uses."""
        epoch, total = step // self.steps_per_epoch, self.total_steps
        optim, objective = self.optim, self.objective
        warmup = objective.teacher_temp_warmup_epochs
        return Now(
            lr=self._learning_rate(step),
            weight_decay=cosine(step, total=total, start=optim.weight_decay, final=optim.weight_decay_end),
            teacher_temp=teacher_temp(
                epoch, warmup_epochs=warmup, start=objective.warmup_teacher_temp, final=objective.teacher_temp
            ),
            teacher_patch_temp=teacher_temp(
                epoch,
                warmup_epochs=warmup,
                start=objective.warmup_teacher_patch_temp,
                final=objective.teacher_patch_temp,
                hold_epochs=self.mask_start_epoch,
            ),
            teacher_momentum=self._teacher_momentum(step),
            freeze_prototypes=epoch < optim.freeze_prototypes_epochs,
            freeze_backbone=epoch < self.freeze_backbone_epochs,
        )

    def _teacher_momentum(self, step: int) -> float:
        """A cosine to 1; while the head learns alone, no more than lets the teacher's head come along in that time."""
        momentum = cosine(step, total=self.total_steps, start=self.objective.teacher_momentum, final=1.0)
        frozen = self.freeze_backbone_epochs * self.steps_per_epoch
        return min(momentum, max(0.0, 1 - HEAD_SPANS / frozen)) if step < frozen else momentum

    def _learning_rate(self, step: int) -> float:
        """Warm-up and cosine; the head of a frozen backbone has a rate of its own before them.

        That one rises over the first half of its epochs and stays. When the backbone thaws, the whole warm-up is still
        to come: a trained backbone must not meet the full rate at once.
        """
        optim, frozen = self.optim, self.freeze_backbone_epochs * self.steps_per_epoch
        images = self.batch_size / 256
        if step < frozen:
            peak = (self.head_lr or optim.lr) * images
            return warmup_cosine(step, total=frozen, warmup=frozen // 2, peak=peak, final=peak)
        return warmup_cosine(
            step - frozen,
            total=self.total_steps - frozen,
            warmup=optim.warmup_epochs * self.steps_per_epoch,
            peak=optim.lr * images,
            final=optim.min_lr,
        )
