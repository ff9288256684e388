"""When a run reads its numbers, saves, and stops: the same in every process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ibot_cli import distributed
from ibot_cli.errors import TrainingError
from ibot_cli.train.interrupt import StopRequest


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What is due after an update.

    Attributes:
        epoch_end: An epoch is complete.
        reading: The window is to be read.
        saving: A checkpoint is due by the number of steps or epochs.
    """

    epoch_end: bool
    reading: bool
    saving: bool


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The rhythm of a run.

    Attributes:
        total_steps: Updates of the whole run; a checkpoint is due after the last.
        steps_per_epoch: Updates per epoch.
        log_every: Steps between readings.
        checkpoint_epochs: Epochs between checkpoints, 0 for none.
        checkpoint_steps: Steps between checkpoints, 0 for none.
        device: Where processes agree.
    """

    total_steps: int
    steps_per_epoch: int
    log_every: int
    checkpoint_epochs: int
    device: torch.device
    checkpoint_steps: int = 0

    def after(self, step: int, stop: StopRequest) -> Moment:
        """What is due after update number `step`, counted from 1."""
        epoch_end = step % self.steps_per_epoch == 0
        on_count = self.checkpoint_steps > 0 and step % self.checkpoint_steps == 0
        # One process reacts to a signal at once; several agree at the next reading, to stop after the same step.
        at_once = stop.requested and distributed.world() == 1
        return Moment(
            epoch_end=epoch_end,
            reading=step % self.log_every == 0 or epoch_end or on_count or at_once,
            saving=on_count or self._epoch_checkpoint(step, epoch_end),
        )

    def stopping(self, stop: StopRequest) -> bool:
        """Whether a signal came in any process; every process asks at the same step."""
        return stop.requested if distributed.world() == 1 else distributed.any_rank(stop.requested, self.device)

    def _epoch_checkpoint(self, step: int, epoch_end: bool) -> bool:
        every = self.checkpoint_epochs
        return step == self.total_steps or (epoch_end and every > 0 and (step // self.steps_per_epoch) % every == 0)


def require_finite(state: dict[str, Tensor], step: int) -> None:
    """A non-finite state is never saved; skipped steps keep the weights finite, so this should not happen.

    Raises:
        TrainingError: A tensor is not finite.
    """
    tensors = [value for value in state.values() if value.is_floating_point()]
    if torch.stack([~torch.isfinite(value).all() for value in tensors]).any():
        raise TrainingError(
            f"The weights are not finite at step {step}; nothing was saved.",
            "Resume from the last checkpoint with a lower optim.lr in a new run.",
        )
