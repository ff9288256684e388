"""The loss scale of float16: gradients that would vanish in its small range are computed a power of two larger."""

from __future__ import annotations

import torch
from torch import Tensor

INITIAL = 2.0**16
GROWTH_INTERVAL = 2000


class LossScale:
    """A power of two on the device, halved after an overflow and doubled after many steps without one.

    Nothing of it is ever read by the host. As a power of two it changes no digit of a gradient that stays in range.

    Args:
        device: Where the losses are.
        initial: The first scale.
        growth_interval: Steps without overflow after which it is doubled.

    Attributes:
        scale: float32 scalar, at least 1.
        steps: Steps since it changed last, int32 scalar.

    Source:
        Micikevicius et al., Mixed precision training (arXiv 1710.03740), section 3.2; the numbers are those of
        `torch.amp.GradScaler`.
    """

    def __init__(
        self, device: torch.device | str = "cpu", *, initial: float = INITIAL, growth_interval: int = GROWTH_INTERVAL
    ) -> None:
        self.scale = torch.tensor(initial, dtype=torch.float32, device=device)
        self.steps = torch.zeros((), dtype=torch.int32, device=device)
        self.growth_interval = growth_interval

    def excuses(self, losses_finite: Tensor, gradient_finite: Tensor) -> Tensor:
        """Whether a skipped step is the scale's fault: finite losses, an infinite gradient, and room to go down.

        Args:
            losses_finite: 0-dim bool, the same on all processes.
            gradient_finite: 0-dim bool, the same on all processes.

        Returns:
            0-dim bool tensor. A step that is not finite at a scale of 1 has another reason.
        """
        return losses_finite & ~gradient_finite & (self.scale > 1)

    @torch.no_grad()
    def update(self, finite: Tensor, overflow: Tensor) -> None:
        """Halve after an overflow, double after `growth_interval` good steps; other bad steps change nothing.

        Args:
            finite: Whether the update was made, 0-dim bool.
            overflow: What `excuses` said, 0-dim bool.
        """
        steps = self.steps + finite.to(torch.int32)
        grown = steps >= self.growth_interval
        factor = torch.where(overflow, 0.5, torch.where(grown, 2.0, 1.0))
        self.scale.mul_(factor).clamp_(min=1.0, max=2.0**24)
        self.steps.copy_(torch.where(overflow | grown, 0, steps))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"scale": self.scale, "steps": self.steps}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The opposite of `state`."""
        self.scale.copy_(state["scale"])
        self.steps.copy_(state["steps"])
