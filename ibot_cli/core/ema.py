"""The teacher's weights: an exponential moving average of the student's."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def shared_parameters(student: nn.Module, teacher: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters that both networks have, matched by name; the mask token exists in the student only.

    Raises:
        ValueError: If the teacher has a parameter that the student lacks.
    """
    ours = dict(student.named_parameters())
    pairs = [(ours.get(name), value) for name, value in teacher.named_parameters()]
    if any(source is None for source, _ in pairs):
        raise ValueError("the teacher has parameters that the student lacks")
    return [source for source, _ in pairs if source is not None], [target for _, target in pairs]


@torch.no_grad()
def move_towards(teacher: list[Tensor], student: list[Tensor], step_size: Tensor) -> None:
    """`teacher += step_size * (student - teacher)`, all tensors at once.

    Args:
        teacher: Changed in place.
        student: Same shapes as `teacher`.
        step_size: 0-dim tensor on the same device: `1 - momentum`, or 0 to stay; it is never read by the host.
    """
    if step_size.device.type == "cuda":
        move_together(teacher, student, step_size)
        return
    for target, source in zip(teacher, student, strict=True):
        target.lerp_(source, step_size)


@torch.no_grad()
def move_together(teacher: list[Tensor], student: list[Tensor], step_size: Tensor) -> None:
    """`move_towards` in one kernel over all tensors and without a second copy of the network, for devices.

    SGD that ascends, with the student as gradient and a weight decay of 1, is the moving average; no other update of
    torch takes many tensors at once and its rate from the device. On a CPU it is no faster than one tensor after the
    other, and it computes on real memory where only shapes were asked for.
    """
    if not teacher:
        return
    torch._fused_sgd_(
        teacher,
        student,
        [],
        lr=step_size,
        weight_decay=1.0,
        maximize=True,
        momentum=0.0,
        dampening=0.0,
        nesterov=False,
        is_first_step=False,
    )
