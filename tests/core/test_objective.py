"""The objective on a tiny network against the plain formulas on the scores of *all* tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ibot_cli.core.backbone import drop_path_factors
from ibot_cli.core.batch import Batch
from ibot_cli.core.objective import Objective, SlotStats
from tests import reference
from tests.core import tiny


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours.detach().double(), theirs.detach().double(), atol=tolerance, rtol=1e-4)


def all_scores(network: Any, views: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """CLS scores `[V, B, K]` and the scores of every patch `[V, B, N, K']`."""
    tokens = network.backbone(views.flatten(0, 1), None if mask is None else mask.flatten(0, 1))
    z = network.head.bottleneck(tokens).unflatten(0, views.shape[:2])
    return network.head.cls_logits(z[:, :, 0]), network.head.patch_logits(z[:, :, 1:])


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


@pytest.mark.parametrize("num_local", [2, 0])
@pytest.mark.parametrize("balance", ["center", "sinkhorn"])
@pytest.mark.parametrize("separate", [None, 7])
def test_losses_and_gradients(num_local: int, balance: str, separate: int | None) -> None:
    objective = tiny.objective(balance=balance, separate=separate)
    batch, now = tiny.batch(num_local=num_local), tiny.now()
    expected = expected_losses(objective, batch, now)
    student = objective.student
    gradients = torch.autograd.grad(expected["cls"] + expected["patch"], list(student.parameters()))
    outcome = objective.losses(batch, now)
    assert outcome.terms.keys() == expected.keys()
    for name, term in outcome.terms.items():
        assert term.dtype == torch.float32
        close(term, expected[name])
    (outcome.terms["cls"] + outcome.terms["patch"]).backward()
    for (name, value), gradient in zip(student.named_parameters(), gradients, strict=True):
        assert value.grad is not None, name
        close(value.grad, gradient)
    assert all(value.grad is None for value in objective.teacher.parameters())


def test_weights_scale_the_terms() -> None:
    plain, weighted = tiny.objective(), tiny.objective(cls_weight=0.5, patch_weight=3.0)
    a, b = (o.losses(tiny.batch(), tiny.now()).terms for o in (plain, weighted))
    close(b["cls"], 0.5 * a["cls"])
    close(b["patch"], 3.0 * a["patch"])


def test_temperatures_belong_to_their_slots() -> None:
    objective = tiny.objective(student_temp=0.2)
    base = objective.losses(tiny.batch(), tiny.now()).terms
    other = objective.losses(tiny.batch(), tiny.now(teacher_temp=0.2)).terms
    assert torch.equal(base["patch"], other["patch"]) and not torch.isclose(base["cls"], other["cls"])
    other = objective.losses(tiny.batch(), tiny.now(teacher_patch_temp=0.2)).terms
    assert torch.equal(base["cls"], other["cls"]) and not torch.isclose(base["patch"], other["patch"])
    assert not torch.isclose(base["cls"], tiny.objective().losses(tiny.batch(), tiny.now()).terms["cls"])


def test_drop_path_goes_to_the_right_views() -> None:
    """Factors `[depth, 2, V + L, B]`: dropping everything in one view changes that view's student only."""
    objective, batch = tiny.objective(), tiny.batch()
    cls, patch = objective.student_logits(batch)
    for view in range(4):
        factors = torch.ones(2, 2, 4, 3)
        factors[:, :, view, 1] = 0
        other, other_patch = objective.student_logits(batch.with_drop_path(factors))
        changed = (cls - other).abs().amax(-1) > 1e-4
        assert changed.nonzero().tolist() == [[view, 1]]
        views = batch.mask_index // (3 * 16) * 3 + batch.mask_index // 16 % 3
        assert set(views[(patch - other_patch).abs().amax(-1) > 1e-4].tolist()) == (
            {view * 3 + 1} if view < 2 else set()
        )


def test_random_drop_path_leaves_the_teacher_alone() -> None:
    factors = drop_path_factors(0.5, 2, 4, 3, torch.Generator().manual_seed(0))
    objective, batch = tiny.objective(), tiny.batch()
    plain, dropped = objective.targets(batch, tiny.now()), objective.targets(batch.with_drop_path(factors), tiny.now())
    assert plain.cls is not None and dropped.cls is not None and torch.equal(plain.cls, dropped.cls)
    ours = objective.losses(batch, tiny.now()).terms["cls"]
    assert not torch.isclose(ours, objective.losses(batch.with_drop_path(factors), tiny.now()).terms["cls"])


@pytest.mark.parametrize("balance", ["center", "sinkhorn"])
def test_dino_has_no_mask_token_and_no_patch_term(balance: str) -> None:
    objective = tiny.objective(patch="none", balance=balance)
    assert objective.student.backbone.masked_embed is None and not objective.masks
    outcome = objective.losses(tiny.batch(), tiny.now())
    assert outcome.terms.keys() == outcome.stats.keys() == {"cls"}
    target = expected_targets(objective, tiny.batch(), tiny.now())[0]
    cls = torch.cat(
        [all_scores(objective.student, v)[0] for v in (tiny.batch().global_views, tiny.batch().local_views)]
    )
    close(outcome.terms["cls"], reference.cls_loss(target, cls.double(), 0.1))


def test_dino_with_batch_norm_keeps_finite_statistics() -> None:
    objective = tiny.objective(patch="none", head_options={"norm": "batch"})
    outcome = objective.losses(tiny.batch(), tiny.now())
    objective.after_update(outcome.stats, tiny.now(), torch.tensor(True))
    assert all(torch.isfinite(value).all() for value in objective.state_dict().values())


def test_patch_slot_alone() -> None:
    objective = tiny.objective(cls="none")
    outcome = objective.losses(tiny.batch(num_global=1, num_local=0), tiny.now())
    assert outcome.terms.keys() == {"patch"} and outcome.assignment is None and outcome.agreement is None


@pytest.mark.parametrize("balance", ["center", "sinkhorn"])
def test_losses_change_nothing(balance: str) -> None:
    objective = tiny.objective(balance=balance, head_options={"norm": "batch"})
    before = tiny.snapshot(objective)
    sum(objective.losses(tiny.batch(), tiny.now()).terms.values()).backward()
    assert tiny.same(tiny.snapshot(objective), before)


def test_nothing_masked_trains_the_class_token_only() -> None:
    objective, batch = tiny.objective(), tiny.batch()
    empty = Batch.make(batch.global_views, batch.local_views, torch.zeros_like(batch.mask))
    outcome = objective.losses(empty, tiny.now())
    assert outcome.terms["patch"].item() == 0
    outcome.terms["patch"].backward(retain_graph=True)
    assert all(p.grad is None or not p.grad.any() for p in objective.student.parameters())
    stats = objective.after_update(outcome.stats, tiny.now(), torch.tensor(True))
    assert stats["patch"].rows == 0 and stats["patch"].logit_rows == 96
    assert torch.isfinite(objective.patch_center).all()


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


def test_assignment_and_agreement() -> None:
    """Teacher on the first view, student on the second; other pairs of views would agree on other images."""
    objective, batch = tiny.objective(), tiny.batch(24)
    outcome = objective.losses(batch, tiny.now())
    teacher = all_scores(objective.teacher, batch.global_views)[0].argmax(-1)
    student = all_scores(objective.student, batch.global_views, batch.mask)[0].argmax(-1)
    assert outcome.assignment is not None and outcome.agreement is not None
    assert torch.equal(outcome.assignment, teacher[0]) and not torch.equal(teacher[0], teacher[1])
    shares = [(teacher[q] == student[v]).float().mean() for q, v in ((0, 1), (0, 0), (1, 0))]
    assert outcome.agreement == shares[0] and shares[0] not in shares[1:]


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
