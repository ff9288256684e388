"""The loss scale of float16: gradients that would vanish in its small range are computed a power of two larger."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

INITIAL = 2.0**16
GROWTH_INTERVAL = 2000
LARGEST = 2.0**24


@dataclass(frozen=True, kw_only=True)
class ScaleReport:
    """Numbers of one step, on the device.

    Attributes:
        scale: What the loss was multiplied with, float32 scalar.
        overflow: Whether the update was left out because the scale was too large, bool scalar.
    """

    scale: Tensor
    overflow: Tensor


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

    @torch.no_grad()
    def update(self, losses: Tensor, grad_norm: Tensor) -> ScaleReport:
        """Halve after an overflow, double after `growth_interval` good steps; losses that are not finite say nothing.

        Args:
            losses: The step's losses without the scale, any shape, the same on all processes.
            grad_norm: Norm of its gradient, 0-dim, the same on all processes.

        Returns:
            What the step ran with. A step that is not finite at a scale of 1 has another reason than the scale.
        """
        computed = torch.isfinite(losses).all()
        finite = computed & torch.isfinite(grad_norm)
        overflow = computed & ~finite & (self.scale > 1)
        steps = self.steps + finite
        grown = steps >= self.growth_interval
        report = ScaleReport(scale=self.scale.clone(), overflow=overflow)
        factor = torch.where(overflow, 0.5, 1.0) * torch.where(grown, 2.0, 1.0)
        self.scale.mul_(factor).clamp_(max=LARGEST)
        self.steps.copy_(torch.where(overflow | grown, 0, steps))
        return report

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"scale": self.scale, "steps": self.steps}


def restore_scale(scaler: LossScale | None, state: dict[str, Tensor] | None) -> None:
    """Takes up the state of a checkpoint where there is a scale and a state."""
    if scaler is not None and state is not None:
        scaler.scale.copy_(state["scale"])
        scaler.steps.copy_(state["steps"])
