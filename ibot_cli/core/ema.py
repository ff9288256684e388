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
    if not teacher:
        return
    # SGD that ascends, with the student as gradient and a weight decay of 1, is this average: the only update that
    # torch has in one kernel for many tensors with its rate on the device. It needs no second copy of the network.
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
