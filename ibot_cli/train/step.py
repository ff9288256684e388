"""One training step: forward, backward, clip, update, and what happens once per update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ibot_cli.core.batch import Batch
from ibot_cli.core.heads import BatchNorm
from ibot_cli.core.objective import Now, Objective, Outcome
from ibot_cli.core.optim import apply_schedule, clip_gradients, gated_step
from ibot_cli.core.scale import LossScale, ScaleReport
from ibot_cli.core.stats import Stats
from ibot_cli.train.out_of_memory import within_memory


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Numbers of one step, all still on the device.

    Attributes:
        terms: Weighted loss terms, mean over micro-batches and processes.
        grad_norm: Common gradient norm before clipping.
        agreement: Share of images whose student and teacher pick the same prototype across views, or None.
        finite: Whether the update was made.
        scale: What the loss scale of float16 did, None without one.
        stats: Sums over all micro-batches and processes.
        assignments: Most likely prototype per image of this process, int64 `[B]`, or None.
    """

    terms: dict[str, Tensor]
    grad_norm: Tensor
    agreement: Tensor | None
    finite: Tensor
    scale: ScaleReport | None
    stats: Stats
    assignments: Tensor | None


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What a step needs besides its batches and the schedule.

    Attributes:
        clip_grad: Largest gradient norm, 0 for none.
        clip_mode: `tensor` or `global`.
        dtype: What the networks' products are computed in under autocast, None for none.
        scaler: Loss scale of float16, None for none.
        average_over_ranks: Averages the given tensors over processes, in place.
    """

    clip_grad: float
    clip_mode: str
    dtype: torch.dtype | None
    average_over_ranks: Callable[[Sequence[Tensor]], None]
    scaler: LossScale | None = None


def train_step(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    now: Now,
    settings: StepSettings,
) -> StepReport:
    """One optimiser update from one or more micro-batches, without a host read.

    A non-finite loss or gradient anywhere leaves weights, moments, teacher and centres untouched; the decision is
    made on the device.

    Raises:
        OutOfMemory: The passes do not fit into memory; nothing was updated, see `forget_passes`.
    """
    apply_schedule(optimizer, now.lr, now.weight_decay)
    scaler = settings.scaler
    scale = None if scaler is None else scaler.scale
    report = _mean(passes(objective, batches, now, settings))
    student = objective.student
    if now.freeze_prototypes:
        for parameter in student.head.prototypes():
            parameter.grad = None
    grads = [p.grad for p in student.parameters() if p.grad is not None]
    numbers = torch.stack([*report.terms.values()])
    settings.average_over_ranks([*grads, numbers])
    grad_norm = clip_gradients(student.parameters(), settings.clip_grad, settings.clip_mode, scale)
    finite = torch.isfinite(numbers).all() & torch.isfinite(grad_norm)
    gated_step(optimizer, finite)
    optimizer.zero_grad(set_to_none=True)
    stats = objective.after_update(report.stats, now, finite)
    terms = dict(zip(report.terms, numbers.unbind(), strict=True))
    return StepReport(
        terms=terms,
        grad_norm=grad_norm,
        agreement=report.agreement,
        finite=finite,
        scale=None if scaler is None else scaler.update(numbers, grad_norm),
        stats=stats,
        assignments=report.assignment,
    )


def passes(objective: Objective, batches: Sequence[Batch], now: Now, settings: StepSettings) -> list[Outcome]:
    """Forward and backward passes of a step; the gradients' sum is the student's, everything else stays as it is.

    Raises:
        OutOfMemory: They do not fit into memory.
    """
    share, scaler = 1 / len(batches), settings.scaler
    factor = share if scaler is None else share * scaler.scale
    with within_memory():
        return [_forward_backward(objective, batch, now, settings.dtype, factor) for batch in batches]


def forget_passes(objective: Objective) -> None:
    """Drops what passes left that do not count, or that were broken off."""
    objective.student.zero_grad(set_to_none=True)
    for module in objective.modules():
        if isinstance(module, BatchNorm):
            module.discard()


def _forward_backward(
    objective: Objective, batch: Batch, now: Now, dtype: torch.dtype | None, factor: float | Tensor
) -> Outcome:
    """The outcome of one micro-batch without its graph; the gradient times `factor` is added to the student's."""
    with torch.autocast(batch.global_views.device.type, dtype=dtype, enabled=dtype is not None):
        outcome = objective.losses(batch, now)
    total = torch.stack([*outcome.terms.values()]).sum() * factor
    total.backward()
    terms = {name: term.detach() for name, term in outcome.terms.items()}
    return Outcome(terms=terms, stats=outcome.stats, assignment=outcome.assignment, agreement=outcome.agreement)


def _mean(outcomes: Sequence[Outcome]) -> Outcome:
    """Terms and agreement averaged, sums added, assignments joined over micro-batches."""
    first = outcomes[0]
    stats = dict(first.stats)
    for other in outcomes[1:]:
        stats = {name: value + other.stats[name] for name, value in stats.items()}
    assignments = [o.assignment for o in outcomes if o.assignment is not None]
    agreements = [o.agreement for o in outcomes if o.agreement is not None]
    return Outcome(
        terms={name: torch.stack([o.terms[name] for o in outcomes]).mean() for name in first.terms},
        stats=stats,
        assignment=torch.cat(assignments) if assignments else None,
        agreement=torch.stack(agreements).mean() if agreements else None,
    )
