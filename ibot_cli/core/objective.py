"""The objective: a student, a teacher, and what the student is asked to match.

Shapes: V global views, L local views, B images, N patches, M masked patches, K CLS prototypes, K' patch prototypes,
D token width, d bottleneck.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ibot_cli.core.backbone import Backbone, Crops
from ibot_cli.core.batch import Batch
from ibot_cli.core.ema import move_towards, shared_parameters
from ibot_cli.core.heads import BatchNorm, Head
from ibot_cli.core.koleo import koleo_loss
from ibot_cli.core.losses import Lesson, Matched, cross_view_weights, match, score_chunk
from ibot_cli.core.stats import SlotStats, Stats
from ibot_cli.core.targets import Scores, SumOverRanks, Taught, center_offset, identity, sinkhorn_offset


class Network(nn.Module):
    """A backbone and its head; the state-dict names are the official checkpoints'."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head


@dataclass(frozen=True, kw_only=True)
class Now:
    """The schedules' values at one step.

    Attributes:
        lr: Learning rate before the layers' own factors.
        weight_decay: Of the parameters that are decayed.
        teacher_temp: Of the class token's targets.
        teacher_patch_temp: Of the patches' targets.
        teacher_momentum: Share of the teacher that stays.
        freeze_prototypes: Whether the prototype layer's gradient is dropped.
        freeze_backbone: Whether only the head learns, and only the teacher's head follows.
    """

    lr: float
    weight_decay: float
    teacher_temp: float
    teacher_patch_temp: float
    teacher_momentum: float
    freeze_prototypes: bool
    freeze_backbone: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Loss terms to optimise and numbers to report of one micro-batch.

    Attributes:
        terms: Weighted losses by name, scalars with gradient.
        stats: Sums for centres and monitoring.
        assignment: The most likely prototype of each image's first view by raw score, int64 `[B]`, or None.
        agreement: Share of images whose second view's student picks the first view's teacher prototype, or None.
    """

    terms: dict[str, Tensor]
    stats: Stats
    assignment: Tensor | None
    agreement: Tensor | None


class Objective(nn.Module):
    """Self-distillation with up to two target slots, `cls` and `patch`.

    iBOT fills both with the online teacher, DINO only `cls`. `losses` reads teacher and centres and changes nothing;
    `after_update` is the only place that moves them.

    Args:
        student: Trained by gradient; its backbone has a mask token if there is a patch target.
        teacher: Same shapes; starts as a copy of the student and follows it.
        cls: `online` or `none`.
        patch: `online` or `none`.
        cls_weight: Weight of the class-token loss.
        patch_weight: Weight of the masked-patch loss.
        balance: `center` or `sinkhorn`.
        sinkhorn_iterations: Iterations of the latter.
        koleo_weight: Weight of the KoLeo term; 0 leaves it out.
        center_momentum: Of the class-token centre.
        patch_center_momentum: Of the patch centre.
        student_temp: Student temperature of both losses.
        sum_over_ranks: Sums a tensor over processes.

    Source:
        iBOT (arXiv 2111.07832), section 3.2.
    """

    center: Tensor
    patch_center: Tensor

    def __init__(
        self,
        student: Network,
        teacher: Network,
        *,
        cls: str = "online",
        patch: str = "online",
        cls_weight: float = 1.0,
        patch_weight: float = 1.0,
        balance: str = "center",
        sinkhorn_iterations: int = 3,
        koleo_weight: float = 0.0,
        center_momentum: float = 0.9,
        patch_center_momentum: float = 0.9,
        student_temp: float = 0.1,
        sum_over_ranks: SumOverRanks = identity,
    ) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.slots = {"cls": cls, "patch": patch}
        self.weights = {"cls": cls_weight, "patch": patch_weight, "koleo": koleo_weight}
        self.balance, self.sinkhorn_iterations = balance, sinkhorn_iterations
        self.center_momentum = {"cls": center_momentum, "patch": patch_center_momentum}
        self.student_temp = student_temp
        self.sum_over_ranks = sum_over_ranks
        self.score_chunk = score_chunk
        self.register_buffer("center", torch.zeros(1, len(student.head.last_layer.weight_g)))
        self.register_buffer("patch_center", torch.zeros(1, len(student.head.patch_layer.weight_g)))
        self.teacher.requires_grad_(False)
        missing = teacher.load_state_dict(student.state_dict(), strict=False)
        assert not missing.missing_keys, missing

    @property
    def masks(self) -> bool:
        """Whether the student sees masked views."""
        return self.slots["patch"] != "none"

    def losses(self, batch: Batch, now: Now) -> Outcome:
        """Loss terms of one micro-batch. Reads teacher and centres; changes nothing."""
        with torch.no_grad():
            taught = self._taught(batch)
        tokens = self.tokens(batch, frozen=now.freeze_backbone)
        matched = self._matched(taught, self.student_bottlenecks(tokens, batch), now)
        terms = {name: self.weights[name] * slot.loss for name, (slot, _) in matched.items()}
        if self.weights["koleo"]:
            terms["koleo"] = self.weights["koleo"] * koleo_loss(self._global_cls(tokens, batch))
        cls = matched["cls"][0] if "cls" in matched else None
        agreement = None
        if cls is not None and len(batch.global_views) > 1:
            agreement = (cls.learnt == cls.taught).float().mean()
        stats = {name: sums for name, (_, sums) in matched.items()}
        return Outcome(terms=terms, stats=stats, assignment=cls and cls.taught, agreement=agreement)

    def tokens(self, batch: Batch, *, frozen: bool = False) -> Tensor:
        """The student's class tokens of all views, then its masked patches, `[(V + L) * B + M, D]`.

        Args:
            batch: The views.
            frozen: Whether the gradient ends here; nothing is kept of the backbone then.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            return self._student_tokens(batch, self._masked(batch))

    def student_bottlenecks(self, tokens: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Unit vectors of the student by slot: `[V + L, B, d]` of class tokens, `[1, M, d]` of masked patches.

        The head sees class tokens and masked patches only: the losses need no others.

        Args:
            tokens: See `tokens`.
            batch: The views.
        """
        views = (len(batch.global_views) + len(batch.local_views), batch.num_images)
        cls, patch = self.student.head.bottlenecks(tokens, views[0] * views[1])
        return {"cls": cls.unflatten(0, views), "patch": patch[None]}

    def _matched(
        self, taught: dict[str, Taught], student: dict[str, Tensor], now: Now
    ) -> dict[str, tuple[Matched, SlotStats]]:
        """Loss and sums by slot."""
        temps = {"cls": now.teacher_temp, "patch": now.teacher_patch_temp}
        centers = {"cls": self.center, "patch": self.patch_center}
        with torch.no_grad():
            theirs = self.teacher.head.slot_weights()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not now.freeze_prototypes):
            ours = self.student.head.slot_weights()
        found = {}
        for name, slot in taught.items():
            with torch.no_grad():
                lesson = self._lesson(slot, theirs[name], centers[name], temps[name], same=name == "patch")
                logit_sum = _scores_of_sum(theirs[name], slot.total)
            matched = match(student[name], ours[name], lesson, self.student_temp)
            found[name] = matched, matched.stats(logit_sum, slot.total_rows, slot.weights)
        return found

    def _lesson(self, slot: Taught, weight: Tensor, center: Tensor, temp: float, *, same: bool) -> Lesson:
        scores = Scores.of(slot.rows, weight, temp)
        if self.balance == "sinkhorn":
            counts = (slot.weights != 0).to(slot.weights.dtype)
            offset = sinkhorn_offset(scores, counts, self.sinkhorn_iterations, self.sum_over_ranks)
        else:
            offset = center_offset(center, temp)
        return Lesson(scores=scores, offset=offset, weights=slot.weights, same=same, score_chunk=self.score_chunk)

    def _global_cls(self, tokens: Tensor, batch: Batch) -> Tensor:
        """Class tokens of the global views, `[V, B, D]`, of what `_student_tokens` gives."""
        num_global, num_images = batch.global_views.shape[:2]
        cls: Tensor = tokens[: num_global * num_images].unflatten(0, (num_global, num_images))
        return cls

    def _student_tokens(self, batch: Batch, masked: Tensor) -> Tensor:
        """Class tokens of all views, then the masked patches, `[(V + L) * B + M, D]`."""
        num_global, num_images = batch.global_views.shape[:2]
        drop = batch.drop_path
        mask = batch.mask.flatten(0, 1) if self.masks else None
        factors = (None, None) if drop is None else (drop[:, :, :num_global], drop[:, :, num_global:])
        whole, local = (None if f is None else f.flatten(2, 3) for f in factors)
        crops = [Crops(batch.global_views.flatten(0, 1), mask, whole, masked)]
        if len(batch.local_views):
            crops.append(Crops(batch.local_views.flatten(0, 1), None, local, masked[:0]))
        tokens, *others = self.student.backbone.together(crops)
        num_whole = num_global * num_images
        return torch.cat([tokens[:num_whole], *others, tokens[num_whole:]])

    def _masked(self, batch: Batch) -> Tensor:
        """Positions of the patches that have a target, int64 `[M]`."""
        return batch.mask_index if self.masks else batch.mask_index[:0]

    def _taught(self, batch: Batch) -> dict[str, Taught]:
        """The teacher's bottlenecks by slot.

        The centre needs the mean score over *all* patches. The last layer is linear, so that mean is the layer
        applied to the mean bottleneck, and no other patch needs its K' scores. Sinkhorn needs no centre, hence no
        other patch at all.
        """
        backbone, head = self.teacher.backbone, self.teacher.head
        images, masked = batch.global_views.flatten(0, 1), self._masked(batch)
        if self.balance == "sinkhorn" or not self.masks:
            cls, patch = head.bottlenecks(backbone(images, patches=masked), len(images))
            total, count = torch.zeros_like(cls[0]), 0
        else:
            cls, every = head.image_bottlenecks(backbone(images))
            patches = every.flatten(0, 1)
            patch, total, count = patches.index_select(0, masked), patches.sum(dim=0), batch.mask.numel()
        taught = {}
        if self.slots["cls"] != "none":
            views = (len(batch.global_views), batch.num_images)
            weights = cross_view_weights(views[0], views[0] + len(batch.local_views), views[1], cls)
            taught["cls"] = Taught(cls.unflatten(0, views), weights, cls.sum(dim=0), len(cls))
        if self.slots["patch"] != "none":
            taught["patch"] = Taught(patch[None], batch.mask_weights, total, count)
        return taught

    @torch.no_grad()
    def after_update(self, stats: Stats, now: Now, finite: Tensor) -> Stats:
        """Moves the centres and the teacher once per optimiser step; a non-finite step leaves them where they are.

        Args:
            stats: Sums over all micro-batches of this process.
            now: The step's schedule.
            finite: 0-dim bool tensor, the same on all processes.

        Returns:
            `stats` summed over all processes.
        """
        stats = {name: slot.summed(self.sum_over_ranks) for name, slot in stats.items()}
        if self.balance == "center":
            for name, center in (("cls", self.center), ("patch", self.patch_center)):
                if name in stats:
                    mean = stats[name].logit_sum / stats[name].logit_rows
                    momentum = self.center_momentum[name]
                    moved = center * momentum + mean * (1 - momentum)
                    center.copy_(torch.where(finite, moved, center))
        if now.freeze_backbone:
            student, teacher = shared_parameters(self.student.head, self.teacher.head)
        else:
            student, teacher = shared_parameters(self.student, self.teacher)
        move_towards(teacher, student, torch.where(finite, 1 - now.teacher_momentum, 0.0).to(torch.float32))
        for module in self.modules():
            if isinstance(module, BatchNorm):
                module.commit(finite)
        return stats


def _scores_of_sum(weight: Tensor, bottleneck_sum: Tensor) -> Tensor:
    """Prototype scores `[K]` of a summed bottleneck `[d]`, in float32 whatever the autocast."""
    with torch.autocast(bottleneck_sum.device.type, enabled=False):
        return weight @ bottleneck_sum
