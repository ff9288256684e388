"""Targets and losses of the objective on a tiny network against the plain formulas on the scores of *all* tokens."""

from __future__ import annotations

import pytest
import torch

from ibot_cli.core import swin
from ibot_cli.core.backbone import build_backbone, drop_path_factors
from ibot_cli.core.batch import Batch
from ibot_cli.core.objective import Network, Objective
from tests import reference
from tests.core import tiny
from tests.core.plain_objective import all_scores, close, expected_losses, expected_targets, student_scores


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


def test_swin_in_place_of_a_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask of 2 x 2 output tokens, local crops of one token, and drop path over all blocks of all stages."""
    monkeypatch.setitem(swin.SIZES, "swin_miniature", swin.Size(2, (1, 1, 1, 1), (1, 1, 1, 2)))
    torch.manual_seed(0)
    student, teacher = (
        Network(
            build_backbone(arch="swin_miniature", image_size=64, channels=1, mask_token=mask_token),
            tiny.head(),
        )
        for mask_token in (True, False)
    )
    tiny.scatter(student, 0)
    objective = Objective(student, teacher)
    generator = torch.Generator().manual_seed(0)
    batch = Batch.make(
        torch.randn(2, 3, 1, 64, 64, generator=generator),
        torch.randn(2, 3, 1, 32, 32, generator=generator),
        torch.rand(2, 3, 4, generator=generator) < 0.5,
    )
    expected, terms = expected_losses(objective, batch, tiny.now()), objective.losses(batch, tiny.now()).terms
    for name, term in terms.items():
        close(term, expected[name])
    (terms["cls"] + terms["patch"]).backward()
    assert student.backbone.masked_embed is not None and student.backbone.masked_embed.grad is not None
    assert student.backbone.masked_embed.grad.any()
    dropped = batch.with_drop_path(drop_path_factors(0.5, 4, 4, 3, generator))
    assert not torch.isclose(objective.losses(dropped, tiny.now()).terms["cls"], terms["cls"])


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
    cls, patch = student_scores(objective, batch)
    for view in range(4):
        factors = torch.ones(2, 2, 4, 3)
        factors[:, :, view, 1] = 0
        other, other_patch = student_scores(objective, batch.with_drop_path(factors))
        changed = (cls - other).abs().amax(-1) > 1e-4
        assert changed.nonzero().tolist() == [[view, 1]]
        views = batch.mask_index // (3 * 16) * 3 + batch.mask_index // 16 % 3
        assert set(views[(patch - other_patch).abs().amax(-1) > 1e-4].tolist()) == (
            {view * 3 + 1} if view < 2 else set()
        )


def test_random_drop_path_leaves_the_teacher_alone() -> None:
    factors = drop_path_factors(0.5, 2, 4, 3, torch.Generator().manual_seed(0))
    objective, batch = tiny.objective(), tiny.batch()
    plain, dropped = (objective.losses(b, tiny.now()) for b in (batch, batch.with_drop_path(factors)))
    for name, slot in plain.stats.items():
        assert torch.equal(slot.prob_sum, dropped.stats[name].prob_sum)
    assert not torch.isclose(plain.terms["cls"], dropped.terms["cls"])


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


@pytest.mark.parametrize("balance", ["center", "sinkhorn"])
def test_padded_patches_count_nowhere(balance: str) -> None:
    objective, batch = tiny.objective(balance=balance), tiny.batch()
    plain, padded = (objective.losses(b, tiny.now()) for b in (batch, batch.padded(len(batch.mask_index) + 20)))
    for name, term in plain.terms.items():
        close(padded.terms[name], term)
    for ours, theirs in zip(vars(padded.stats["patch"]).values(), vars(plain.stats["patch"]).values(), strict=True):
        close(ours, theirs)


def test_frozen_prototypes_cost_no_gradient() -> None:
    objective = tiny.objective(separate=7)
    sum(objective.losses(tiny.batch(), tiny.now(freeze_prototypes=True)).terms.values()).backward()
    frozen = {name for name, value in objective.student.named_parameters() if value.grad is None}
    assert frozen == {f"head.{layer}.weight_{part}" for layer in ("last_layer", "last_layer2") for part in "gv"}


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
