"""The self-distillation loss, a chunk of rows at a time.

Loss, statistics and gradients of a chunk are computed together, so nothing of rows by prototypes is kept.

Shapes: V teacher views, S student views, R rows (images; or patches, with V = S = 1), d bottleneck, K prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ibot_cli.core.stats import SlotStats
from ibot_cli.core.targets import Scores, chunks, padded

HALF_GAIN = 64.0  # lifts probabilities out of float16's smallest numbers
HALF_LARGEST = 2.0**15  # what sums of float16 products are kept below


class Scored(NamedTuple):
    """What one chunk of scores gives.

    Attributes:
        loss: Weighted sum over the rows, a scalar in nats.
        gradient: Of each row's loss before its weight, for the scaled student scores, `[S, R, K]`.
        prob_sum: Sum of the target distributions, `[K]`.
        entropy: Sum of their entropies, a scalar in nats.
        best: Their most likely prototypes, int64 `[V, R]`.
    """

    loss: Tensor
    gradient: Tensor
    prob_sum: Tensor
    entropy: Tensor
    best: Tensor


def score_chunk(teacher: Tensor, student: Tensor, offset: Tensor, weights: Tensor, same: bool) -> Scored:
    """Cross-entropy of student views with teacher views, and its gradient. Pure; float32 whatever the scores are.

    Args:
        teacher: Scores over temperature, `[V, R, K]`.
        student: Scores over temperature, `[S, R, K]`; the first V are of the teacher's views.
        offset: What is subtracted from the teacher's, `[K]`; its type is that of the result.
        weights: Of the rows' losses, `[R]`; 0 marks padding, which counts nowhere.
        same: Whether a view is matched with itself (V = S = 1) instead of with all others.
    """
    counts, views = (weights != 0).to(offset.dtype), len(teacher)
    log_target = torch.log_softmax(teacher - offset, dim=-1)
    best = log_target.argmax(dim=-1)
    target = log_target.exp()
    entropy = -(log_target.mul_(target).sum(dim=-1) @ counts).sum()
    del log_target
    prob_sum = target.flatten(0, 1).t() @ counts.repeat(views)
    log_student = torch.log_softmax(student, dim=-1, dtype=offset.dtype)
    if same:
        wanted = target[0]
        matched = (wanted * log_student[0]).sum(dim=-1)
        gradient = log_student.exp_()
    else:
        wanted = target.sum(dim=0)
        own = (target * log_student[:views]).sum(dim=(0, 2))
        matched = (wanted * log_student.sum(dim=0)).sum(dim=-1) - own
        gradient = log_student.exp_()
        gradient[:views].mul_(views - 1).add_(target)
        gradient[views:].mul_(views)
    return Scored(-(weights @ matched), gradient.sub_(wanted), prob_sum, entropy, best)


ScoreChunk = Callable[[Tensor, Tensor, Tensor, Tensor, bool], Scored]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What the student of one slot is asked to match, without gradient.

    Attributes:
        scores: The teacher's, `[V, R, K]`.
        offset: What turns them into targets, `[K]`.
        weights: Of the rows' losses, `[R]`; 0 for padding.
        same: See `score_chunk`.
        score_chunk: The function of that name, or a compiled form of it.
    """

    scores: Scores
    offset: Tensor
    weights: Tensor
    same: bool
    score_chunk: ScoreChunk = score_chunk


class Matched(NamedTuple):
    """The loss of a slot and what is reported of it.

    Attributes:
        loss: A scalar in nats, with gradient.
        prob_sum: See `Scored`.
        entropy: See `Scored`.
        best: See `Scored`.
        taught: The most likely prototypes of the teacher's first view by raw score, int64 `[R]`; none with `same`.
        learnt: Those of the student's second view.
    """

    loss: Tensor
    prob_sum: Tensor
    entropy: Tensor
    best: Tensor
    taught: Tensor
    learnt: Tensor

    def stats(self, logit_sum: Tensor, logit_rows: int, weights: Tensor) -> SlotStats:
        """The sums over the rows; `weights` are those of the losses, the others attributes of the result."""
        counts = (weights != 0).to(logit_sum.dtype)
        return SlotStats(
            logit_sum=logit_sum,
            logit_rows=logit_sum.new_full((), logit_rows),
            prob_sum=self.prob_sum,
            used=torch.zeros_like(logit_sum).index_add(0, self.best.flatten(), counts.repeat(len(self.best))),
            entropy=self.entropy,
            rows=counts.sum() * len(self.best),
        )


def match(student: Tensor, weight: Tensor, lesson: Lesson, temp: float) -> Matched:
    """The cross-entropy of a student with its targets.

    Args:
        student: Unit vectors, `[S, R, d]`; autocast decides the type of the products, the rest is float32.
        weight: The student's prototypes, `[K, d]`; detached, they cost no gradient.
        lesson: What to match.
        temp: Student temperature, > 0; the paper uses 0.1.

    Returns:
        R = 0 gives a loss of 0, with a gradient of 0.

    Source:
        L_CLS and L_MIM of iBOT (arXiv 2111.07832).
    """
    wanted = torch.is_grad_enabled()
    learns = (wanted and student.requires_grad, wanted and weight.requires_grad)
    return Matched(*_Match.apply(student, weight, lesson, temp, learns))


def cross_view_weights(num_teacher: int, num_student: int, num_images: int, like: Tensor) -> Tensor:
    """Weights `[B]` of the class-token loss: the mean over all pairs of different views, and over the images.

    Raises:
        ValueError: If there is no pair (one view in all).

    Source:
        L_CLS of iBOT (arXiv 2111.07832) with DINO's local crops; all pairs weigh the same, as in the authors' code.
    """
    pairs = num_teacher * (num_student - 1)
    if pairs == 0:
        raise ValueError("the class-token loss needs at least two views")
    return like.new_full((num_images,), 1 / (pairs * max(num_images, 1)))


class _Match(torch.autograd.Function):
    """Gradients are computed with the loss: only they, not the scores, wait for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, weight: Tensor, lesson: Lesson, temp: float, learns: tuple[bool, bool]
    ) -> tuple[Tensor, ...]:
        scores = Scores.of(student, weight, temp)
        with torch.autocast(student.device.type, enabled=False):
            result, gradients, factor = _sweep(student, scores, lesson, temp, learns)
        ctx.save_for_backward(*gradients, factor)
        ctx.mark_non_differentiable(*result[1:])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        *gradients, factor = ctx.saved_tensors
        scale = grad * factor
        # In place: of K x d there is one tensor, not two. A second backward pass is refused by autograd's own check.
        return *(None if g is None else g.mul_(scale) for g in gradients), None, None, None


def _sweep(
    student: Tensor, scores: Scores, lesson: Lesson, temp: float, learns: tuple[bool, bool]
) -> tuple[Matched, list[Tensor | None], Tensor]:
    """Results, gradients of rows and prototypes, and what these are still to be multiplied by.

    The products of the gradients see numbers of order one, which half precision can hold whatever the weights are.
    """
    gain = HALF_GAIN if scores.rows.dtype == torch.float16 else 1.0
    top = lesson.weights.amax() if len(lesson.weights) else lesson.weights.new_zeros(())
    shares = (lesson.weights / top.clamp(min=torch.finfo(top.dtype).tiny))[:, None]
    row_grad = torch.zeros_like(student) if learns[0] else None
    weight_grad = student.new_zeros(scores.weight.shape) if learns[1] else None
    sums = [top.new_zeros(()), torch.zeros_like(lesson.offset), top.new_zeros(())]
    empty = top.new_zeros(0, dtype=torch.int64)
    picks: list[tuple[Tensor, ...]] = []
    for rows in chunks(student.shape[1], len(student), len(scores.weight), student.device):
        teacher, logits, shared = lesson.scores.part(rows), scores.part(rows), shares[rows]
        loss, gradient, prob_sum, entropy, best = lesson.score_chunk(
            teacher, logits, lesson.offset, padded(lesson.weights, rows, -1), lesson.same
        )
        sums = [a + b for a, b in zip(sums, (loss, prob_sum, entropy), strict=True)]
        raw = (empty, empty) if lesson.same else (x[: len(shared)].argmax(-1) for x in (teacher[0], logits[1]))
        picks.append((best[:, : len(shared)], *raw))
        del teacher, logits
        gradient = (gradient if gain == 1 else gradient * gain)[:, : len(shared)].to(scores.rows.dtype)
        if row_grad is not None:
            row_grad[:, rows] = (gradient.flatten(0, 1) @ scores.weight).view_as(student[:, rows]) * shared
        if weight_grad is not None:
            # Rows may all agree, and an entry of the gradient is at most as large as there are views of the teacher.
            sum_of_rows = gain * len(lesson.scores.rows) * gradient.shape[:2].numel()
            ease = 1.0 if gain == 1 else 2.0 ** -max(0, math.ceil(math.log2(sum_of_rows / HALF_LARGEST)))
            right = (student[:, rows] * (shared * ease)).to(gradient.dtype)
            _add_product(weight_grad, gradient.flatten(0, 1).t(), right.flatten(0, 1), 1 / ease)
        del gradient
    joined = [torch.cat(p, dim=-1) for p in zip(*picks, strict=True)] or [
        empty.expand(len(lesson.scores.rows), 0),
        empty,
        empty,
    ]
    return Matched(*sums, *joined), [row_grad, weight_grad], top / (temp * gain)


def _add_product(total: Tensor, left: Tensor, right: Tensor, factor: float) -> None:
    """`total += factor * left @ right`, in one operation where the types agree."""
    if total.dtype == left.dtype:
        torch.addmm(total, left, right, alpha=factor, out=total)
    else:
        total.add_(left @ right, alpha=factor)
