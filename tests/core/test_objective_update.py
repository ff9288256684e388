"""Statistics of a step, and what moves once per update: centres, teacher, batch statistics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ibot_cli.core.backbone import drop_path_factors
from ibot_cli.core.stats import SlotStats
from tests import reference
from tests.core import tiny
from tests.core.plain_objective import all_scores, close, expected_targets


@pytest.mark.parametrize("separate", [None, 7])
@pytest.mark.parametrize("momentum", [0.9, 0.3])
def test_centres_follow_the_raw_scores_of_all_views_and_all_patches(separate: int | None, momentum: float) -> None:
    objective = tiny.objective(separate=separate, center_momentum=momentum, patch_center_momentum=1 - momentum)
    batch = tiny.batch(5)
    cls, patch = all_scores(objective.teacher, batch.global_views)
    centers = [
        reference.moved_center(objective.center.double(), cls.flatten(0, 1).double(), momentum),
        reference.moved_center(objective.patch_center.double(), patch.flatten(0, 2).double(), 1 - momentum),
    ]
    outcome = objective.losses(batch, tiny.now())
    objective.after_update(outcome.stats, tiny.now(), torch.tensor(True))
    close(objective.center, centers[0], 1e-6)
    close(objective.patch_center, centers[1], 1e-6)


def test_patch_centre_is_exact_under_bf16() -> None:
    """The bottlenecks are rounded, their sum and the scores of it are not: the error is that of the inputs."""
    objective, batch = tiny.objective(), tiny.batch(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stats = objective.losses(batch, tiny.now()).stats["patch"]
        tokens = objective.teacher.backbone(batch.global_views.flatten(0, 1))
        z = objective.teacher.head.bottleneck(tokens)[:, 1:]
    assert stats.logit_sum.dtype == torch.float32
    weight = objective.teacher.head.patch_layer.weight()
    expected = (z.double() @ weight.double().T).sum((0, 1))
    torch.testing.assert_close(stats.logit_sum.double(), expected, atol=1e-4, rtol=1e-5)


def test_sinkhorn_keeps_no_centre() -> None:
    objective = tiny.objective(balance="sinkhorn")
    center, patch_center = objective.center.clone(), objective.patch_center.clone()
    outcome = objective.losses(tiny.batch(), tiny.now())
    objective.after_update(outcome.stats, tiny.now(), torch.tensor(True))
    assert torch.equal(objective.center, center) and torch.equal(objective.patch_center, patch_center)


def test_two_half_batches_equal_one_whole() -> None:
    """Gradient, centres and teacher, with drop path; exact for centring because both halves weigh the same."""
    factors = drop_path_factors(0.3, 2, 4, 4, torch.Generator().manual_seed(0))
    whole = tiny.batch(4, drop_path=factors)
    results = []
    for parts in ([whole], [tiny.part(whole, slice(0, 2)), tiny.part(whole, slice(2, 4))]):
        objective, stats = tiny.objective(), {}
        for part in parts:
            outcome = objective.losses(part, tiny.now())
            (sum(outcome.terms.values()) / len(parts)).backward()
            stats = {name: slot + stats[name] if stats else slot for name, slot in outcome.stats.items()}
        objective.after_update(stats, tiny.now(), torch.tensor(True))
        results.append((objective, stats))
    (one, one_stats), (two, two_stats) = results
    for (name, a), b in zip(one.student.named_parameters(), two.student.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, name
        close(a.grad, b.grad, 1e-6)
    for name, value in one.state_dict().items():
        close(value, two.state_dict()[name], 1e-6)
    for name, slot in one_stats.items():
        for key, value in vars(slot).items():
            torch.testing.assert_close(value, getattr(two_stats[name], key), atol=1e-4, rtol=1e-5)


def test_teacher_starts_as_a_copy_without_the_mask_token() -> None:
    objective = tiny.objective(diverge=False)
    student, teacher = objective.student.state_dict(), objective.teacher.state_dict()
    assert student.keys() - teacher.keys() == {"backbone.masked_embed"}
    assert all(torch.equal(value, student[name]) for name, value in teacher.items())
    assert not any(value.requires_grad for value in objective.teacher.parameters())
    student["head.mlp.0.weight"].zero_()
    assert objective.teacher.head.mlp[0].weight.any()


def test_teacher_follows_the_student() -> None:
    objective = tiny.objective()
    student, before = tiny.snapshot(objective.student), tiny.snapshot(objective.teacher)
    stats = objective.losses(tiny.batch(), tiny.now()).stats
    objective.after_update(stats, tiny.now(teacher_momentum=0.8), torch.tensor(True))
    for name, value in objective.teacher.state_dict().items():
        close(value, 0.8 * before[name] + 0.2 * student[name], 1e-6)


def test_a_bad_step_moves_neither_centres_nor_teacher() -> None:
    objective = tiny.objective(head_options={"norm": "batch"})
    before = tiny.snapshot(objective)
    batch = tiny.batch()
    batch.global_views[1, 0, 0, 0, 0] = math.inf
    outcome = objective.losses(batch, tiny.now())
    assert not torch.isfinite(outcome.terms["cls"])
    objective.after_update(outcome.stats, tiny.now(), torch.tensor(False))
    assert tiny.same(tiny.snapshot(objective), before)
    objective.after_update(objective.losses(tiny.batch(), tiny.now()).stats, tiny.now(), torch.tensor(True))
    assert all(torch.isfinite(value).all() for value in objective.state_dict().values())


@pytest.mark.parametrize("balance", ["center", "sinkhorn"])
def test_statistics_count_rows_entropy_and_prototypes(balance: str) -> None:
    objective, batch = tiny.objective(balance=balance), tiny.batch()
    cls, patch = expected_targets(objective, batch, tiny.now())
    stats = objective.losses(batch, tiny.now()).stats
    for slot, target in (("cls", cls.flatten(0, 1)), ("patch", patch[batch.mask])):
        ours = stats[slot]
        assert ours.rows == len(target)
        close(ours.prob_sum, target.sum(0))
        close(ours.entropy, torch.special.entr(target).sum(), 1e-4)
        assert ours.used.tolist() == torch.bincount(target.argmax(-1), minlength=12).tolist()
    assert stats["cls"].logit_rows == 6
    assert stats["patch"].logit_rows == (96 if balance == "center" else 0)


def test_sums_over_ranks_in_one_exchange() -> None:
    calls = []

    def double(tensor: Tensor) -> Tensor:
        calls.append(tensor.shape)
        return 2 * tensor

    slot = SlotStats.zero(5) + SlotStats(
        logit_sum=torch.arange(5.0),
        logit_rows=torch.tensor(3.0),
        prob_sum=torch.ones(5),
        used=torch.arange(5.0),
        entropy=torch.tensor(0.5),
        rows=torch.tensor(4.0),
    )
    total = slot.summed(double)
    assert len(calls) == 1
    assert total.logit_sum.tolist() == [0, 2, 4, 6, 8] and total.used.tolist() == [0, 2, 4, 6, 8]
    assert (total.logit_rows, total.entropy, total.rows) == (6, 1, 8) and total.prob_sum.tolist() == [2] * 5


def test_centres_use_the_sums_of_all_ranks() -> None:
    """Another rank hands in ten times as many rows of zeros: the mean shrinks to an eleventh."""

    def with_others(tensor: Tensor) -> Tensor:
        others = torch.zeros_like(tensor)
        others[12] = 60.0  # logit_rows follows logit_sum [12]
        return tensor + others

    alone, together = tiny.objective(patch="none"), tiny.objective(patch="none", sum_over_ranks=with_others)
    start = alone.center.clone()
    assert torch.equal(start, together.center)
    for objective in (alone, together):
        stats = objective.losses(tiny.batch(), tiny.now()).stats
        objective.after_update(stats, tiny.now(), torch.tensor(True))
    close((together.center - 0.9 * start) * 11, alone.center - 0.9 * start)
