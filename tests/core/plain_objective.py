"""Targets and losses of an objective by the plain formulas, from the scores of *all* tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ibot_cli.core.batch import Batch
from ibot_cli.core.objective import Objective
from tests import reference


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours.detach().double(), theirs.detach().double(), atol=tolerance, rtol=1e-4)


def all_scores(network: Any, views: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """CLS scores `[V, B, K]` and the scores of every patch `[V, B, N, K']`."""
    tokens = network.backbone(views.flatten(0, 1), None if mask is None else mask.flatten(0, 1))
    z = network.head.bottleneck(tokens).unflatten(0, views.shape[:2])
    return network.head.cls_logits(z[:, :, 0]), network.head.patch_logits(z[:, :, 1:])


def student_scores(objective: Objective, batch: Batch, *, frozen: bool = False) -> tuple[Tensor, Tensor]:
    """What the losses see of the student: CLS scores `[V + L, B, K]` and those of the masked patches `[M, K']`."""
    rows = objective.student_bottlenecks(objective.tokens(batch, frozen=frozen), batch)
    head = objective.student.head
    return head.cls_logits(rows["cls"]), head.patch_logits(rows["patch"][0])


def expected_targets(objective: Objective, batch: Batch, now: Any) -> tuple[Tensor, Tensor]:
    """Distributions of CLS `[V, B, K]` and of every patch `[V, B, N, K']`; those of seen patches may be zero."""
    cls, patch = (x.detach().double() for x in all_scores(objective.teacher, batch.global_views))
    if objective.balance == "center":
        return (
            reference.centered(cls, objective.center.double(), now.teacher_temp),
            reference.centered(patch, objective.patch_center.double(), now.teacher_patch_temp),
        )
    target = torch.zeros_like(patch)
    target[batch.mask] = reference.sinkhorn(patch[batch.mask], now.teacher_patch_temp, objective.sinkhorn_iterations)
    joint = reference.sinkhorn(cls.flatten(0, 1), now.teacher_temp, objective.sinkhorn_iterations)
    return joint.reshape(cls.shape), target


def expected_losses(objective: Objective, batch: Batch, now: Any) -> dict[str, Tensor]:
    target_cls, target_patch = expected_targets(objective, batch, now)
    cls, patch = all_scores(objective.student, batch.global_views, batch.mask)
    if len(batch.local_views):
        cls = torch.cat([cls, all_scores(objective.student, batch.local_views)[0]])
    return {
        "cls": reference.cls_loss(target_cls, cls.double(), 0.1),
        "patch": reference.mim_loss(target_patch, patch.double(), batch.mask, 0.1),
    }
