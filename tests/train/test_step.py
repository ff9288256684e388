"""One optimiser update: what it moves, what a bad one leaves alone, and what it reports."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ibot_cli.core.backbone import drop_path_factors
from ibot_cli.core.batch import Batch
from ibot_cli.core.objective import Objective
from ibot_cli.core.optim import build_optimizer
from ibot_cli.core.scale import LossScale
from ibot_cli.train.step import StepReport, StepSettings, train_step
from tests.core import tiny
from tests.core.plain_objective import student_scores


def settings(**changes: Any) -> StepSettings:
    values: dict[str, Any] = {
        "clip_grad": 0.0,
        "clip_mode": "tensor",
        "dtype": None,
        "average_over_ranks": lambda tensors: None,
    }
    return StepSettings(**{**values, **changes})


class Training:
    """An objective with its optimiser."""

    def __init__(self, **options: Any) -> None:
        self.objective: Objective = tiny.objective(**options)
        self.optimizer = build_optimizer(self.objective.student, betas=(0.9, 0.999), eps=1e-8)

    def step(self, batches: Sequence[Batch], options: StepSettings | None = None, **now: Any) -> StepReport:
        return train_step(self.objective, self.optimizer, batches, tiny.now(**now), options or settings())

    def state(self) -> dict[str, Tensor]:
        """Everything that a step may move."""
        values = tiny.snapshot(self.objective)
        for index, moments in self.optimizer.state_dict()["state"].items():
            values |= {f"{index}.{name}": value.clone() for name, value in moments.items()}
        return values


def with_value(batch: Batch, value: float) -> Batch:
    views = batch.global_views.clone()
    views[1, 0, 0, 3, 3] = value
    return Batch.make(views, batch.local_views, batch.mask)


def test_a_step_is_adamw_on_the_sum_of_the_terms() -> None:
    training, twin = Training(), Training()
    batch, now = tiny.batch(), tiny.now()
    plain = torch.optim.AdamW(
        [
            {"params": [p for n, p in twin.objective.student.named_parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for n, p in twin.objective.student.named_parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=1e-2,
    )
    for _ in range(3):
        terms = twin.objective.losses(batch, now).terms
        stats = twin.objective.losses(batch, now).stats
        plain.zero_grad()
        (terms["cls"] + terms["patch"]).backward()
        total = math.sqrt(sum(float(p.grad.square().sum()) for p in twin.objective.student.parameters()))
        plain.step()
        twin.objective.after_update(stats, now, torch.tensor(True))
        report = training.step([batch])
        assert report.terms["cls"].item() == pytest.approx(terms["cls"].item(), rel=1e-5)
        assert report.terms["patch"].item() == pytest.approx(terms["patch"].item(), rel=1e-5)
        assert report.grad_norm.item() == pytest.approx(total, rel=1e-4) and report.finite
    for name, value in training.objective.state_dict().items():
        # One update has a size of 1e-2; the key third of qkv biases has no gradient but rounding, which Adam scales up.
        if not name.endswith("qkv.bias"):
            torch.testing.assert_close(value, twin.objective.state_dict()[name], atol=2e-4, rtol=1e-4)


def test_training_lowers_the_loss() -> None:
    """On one batch, towards a teacher that stays where it is."""
    training = Training(diverge=False)
    losses = [
        sum(float(x) for x in training.step([tiny.batch()], teacher_momentum=1.0, lr=3e-3).terms.values())
        for _ in range(30)
    ]
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize(
    "options",
    [{}, {"balance": "sinkhorn"}, {"head_options": {"norm": "batch"}}, {"patch": "none"}],
    ids=["center", "sinkhorn", "batch_norm", "dino"],
)
def test_a_bad_step_leaves_no_trace_and_the_next_one_works(value: float, options: dict[str, Any]) -> None:
    training, twin = Training(**options), Training(**options)
    for run in (training, twin):
        run.step([tiny.batch(seed=1)])
    before = training.state()
    report = training.step([with_value(tiny.batch(seed=2), value)], clip(3.0, "global"))
    assert not report.finite and not torch.isfinite(report.terms["cls"])
    assert tiny.same(training.state(), before)
    for run in (training, twin):
        assert run.step([tiny.batch(seed=3)]).finite
    assert tiny.same(training.state(), twin.state())
    assert not tiny.same(training.state(), before)
    assert all(torch.isfinite(x).all() for x in training.state().values())


def test_a_bad_first_step_and_a_bad_micro_batch() -> None:
    training, twin = Training(), Training()
    report = training.step([tiny.batch(seed=2), with_value(tiny.batch(seed=2), math.inf)])
    assert not report.finite
    assert tiny.same(tiny.snapshot(training.objective), tiny.snapshot(twin.objective))
    assert all(not any(v.any() for v in state.values()) for state in training.optimizer.state.values())
    for run in (training, twin):
        run.step([tiny.batch(seed=3)])
    assert tiny.same(training.state(), twin.state())


@pytest.mark.parametrize("which", [4, -1])
def test_a_bad_gradient_or_a_bad_loss_alone_is_enough(which: int) -> None:
    """As from another process: the gradients come first in what is averaged, the terms last."""
    training = Training()
    training.step([tiny.batch(seed=1)])
    before = training.state()

    def spoil(tensors: Sequence[Tensor]) -> None:
        tensors[which].view(-1)[0] = math.inf

    report = training.step([tiny.batch(seed=2)], settings(average_over_ranks=spoil, clip_grad=3.0))
    assert not report.finite
    assert torch.isfinite(report.terms["cls"]) == (which == 4) and torch.isfinite(report.grad_norm) == (which == -1)
    assert tiny.same(training.state(), before)


def clip(limit: float, mode: str) -> StepSettings:
    return settings(clip_grad=limit, clip_mode=mode)


@pytest.mark.parametrize("mode", ["tensor", "global"])
def test_clipping_decides_the_first_moment(mode: str) -> None:
    """After one step Adam's first moment is a tenth of the gradient that it was given."""
    training, twin = Training(), Training()
    limit = 2.5  # between the smallest and the largest norm of a tensor
    terms = twin.objective.losses(tiny.batch(), tiny.now()).terms
    (terms["cls"] + terms["patch"]).backward()
    parameters = list(twin.objective.student.parameters())
    groups = [[p] for p in parameters] if mode == "tensor" else [parameters]
    norms = [float(torch.nn.utils.clip_grad_norm_(group, limit)) for group in groups]
    assert max(norms) > limit
    assert mode == "global" or min(norms) < limit
    training.step([tiny.batch()], clip(limit, mode))
    for ours, theirs in zip(training.objective.student.parameters(), parameters, strict=True):
        assert theirs.grad is not None
        moment = training.optimizer.state[ours]["exp_avg"]
        torch.testing.assert_close(moment, 0.1 * theirs.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("separate", [None, 7])
def test_frozen_prototypes_do_not_move(separate: int | None) -> None:
    training = Training(separate=separate)
    before = tiny.snapshot(training.objective.student)
    training.step([tiny.batch()], freeze_prototypes=True)
    after = training.objective.student.state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name]) == ("last_layer" in name), name
    assert all(p not in training.optimizer.state for p in training.objective.student.head.prototypes())
    training.step([tiny.batch()])
    assert not torch.equal(
        training.objective.student.state_dict()["head.last_layer.weight_v"], before["head.last_layer.weight_v"]
    )


def test_schedule_values_are_used() -> None:
    """Without a learning rate nothing but centres moves; with momentum 0 the teacher becomes the student."""
    training = Training()
    before = tiny.snapshot(training.objective)
    training.step([tiny.batch()], lr=0.0, teacher_momentum=1.0)
    after = tiny.snapshot(training.objective)
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"center", "patch_center"}
    training.step([tiny.batch()], teacher_momentum=0.0)
    student = training.objective.student.state_dict()
    for name, value in training.objective.teacher.state_dict().items():
        torch.testing.assert_close(value, student[name], atol=1e-6, rtol=1e-6)


def test_two_micro_batches_equal_one_batch() -> None:
    factors = drop_path_factors(0.3, 2, 4, 4, torch.Generator().manual_seed(0))
    whole = tiny.batch(4, drop_path=factors)
    one, two = Training(), Training()
    for step in range(2):
        a = one.step([whole])
        b = two.step([tiny.part(whole, slice(0, 2)), tiny.part(whole, slice(2, 4))])
        for name in ("cls", "patch"):
            torch.testing.assert_close(a.terms[name], b.terms[name], atol=1e-4 if step else 1e-6, rtol=1e-4)
        assert a.agreement is not None and b.agreement is not None and a.agreement == b.agreement
        assert a.assignments is not None and b.assignments is not None
        assert torch.equal(a.assignments, b.assignments)
        torch.testing.assert_close(a.stats["patch"].rows, b.stats["patch"].rows)
    for name, value in one.objective.state_dict().items():
        if not name.endswith("qkv.bias"):
            torch.testing.assert_close(value, two.objective.state_dict()[name], atol=2e-4, rtol=1e-4)


def test_averaging_over_ranks_covers_gradients_and_terms() -> None:
    """Another rank with zero gradient and loss halves both; the clipped norm is that of the average."""
    training, alone = Training(), Training()

    def with_idle_rank(tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            tensor /= 2

    ours = training.step([tiny.batch()], settings(average_over_ranks=with_idle_rank))
    theirs = alone.step([tiny.batch()])
    torch.testing.assert_close(ours.grad_norm, theirs.grad_norm / 2)
    for name in ("cls", "patch"):
        torch.testing.assert_close(ours.terms[name], theirs.terms[name] / 2)
    for a, b in zip(training.objective.student.parameters(), alone.objective.student.parameters(), strict=True):
        torch.testing.assert_close(training.optimizer.state[a]["exp_avg"], alone.optimizer.state[b]["exp_avg"] / 2)


def test_bf16_is_finite_close_and_keeps_float32_state() -> None:
    low, full = Training(), Training()
    batch = tiny.batch(4, drop_path=drop_path_factors(0.3, 2, 4, 4, torch.Generator().manual_seed(0)))
    ours, theirs = low.step([batch], settings(dtype=torch.bfloat16)), full.step([batch])
    assert ours.finite
    for name in ("cls", "patch"):
        assert ours.terms[name].dtype == torch.float32
        assert ours.terms[name].item() == pytest.approx(theirs.terms[name].item(), rel=0.03)
        assert not torch.equal(ours.terms[name], theirs.terms[name])  # it did run in bf16
    assert ours.grad_norm.item() == pytest.approx(theirs.grad_norm.item(), rel=0.1)
    assert all(value.dtype == torch.float32 for value in low.state().values())
    torch.testing.assert_close(low.objective.center, full.objective.center, atol=5e-3, rtol=0)
    torch.testing.assert_close(low.objective.patch_center, full.objective.patch_center, atol=5e-3, rtol=0)


@pytest.mark.parametrize(("limit", "mode"), [(0.0, "tensor"), (2.5, "tensor"), (2.5, "global")])
def test_a_power_of_two_as_loss_scale_changes_no_bit(limit: float, mode: str) -> None:
    scaled, plain = Training(), Training()
    scaler = LossScale(initial=2.0**10)
    for seed in range(3):
        batches = [tiny.batch(seed=seed), tiny.batch(seed=seed + 9)]
        ours = scaled.step(batches, settings(clip_grad=limit, clip_mode=mode, scaler=scaler))
        theirs = plain.step(batches, settings(clip_grad=limit, clip_mode=mode))
        assert torch.equal(ours.grad_norm, theirs.grad_norm) and ours.terms == theirs.terms
        assert ours.scale is not None and ours.scale.scale == 2**10 and not ours.scale.overflow
    assert theirs.scale is None and tiny.same(scaled.state(), plain.state())


def test_fp16_is_close_and_keeps_float32_state() -> None:
    low, full = Training(), Training()
    batch = tiny.batch(4, drop_path=drop_path_factors(0.3, 2, 4, 4, torch.Generator().manual_seed(0)))
    ours = low.step([batch], settings(dtype=torch.float16, scaler=LossScale(initial=2.0**8)))
    theirs = full.step([batch])
    assert ours.finite and all(value.dtype == torch.float32 for value in low.state().values())
    for name in ("cls", "patch"):
        assert ours.terms[name].item() == pytest.approx(theirs.terms[name].item(), rel=5e-3)
        assert not torch.equal(ours.terms[name], theirs.terms[name])  # it did run in fp16
    assert ours.grad_norm.item() == pytest.approx(theirs.grad_norm.item(), rel=0.02)


def test_small_gradients_need_the_loss_scale() -> None:
    """float16 has no numbers below 6e-8: without a scale a faint loss has no gradient in the backbone."""
    norms = {}
    for scale in (1.0, 2.0**16):
        training = Training(cls_weight=1e-7, patch_weight=1e-7)
        report = training.step([tiny.batch()], settings(dtype=torch.float16, scaler=LossScale(initial=scale)))
        norms[scale] = report.grad_norm.item()
    exact = Training(cls_weight=1e-7, patch_weight=1e-7).step([tiny.batch()]).grad_norm.item()
    assert norms[2.0**16] == pytest.approx(exact, rel=0.02) and abs(norms[1.0] / exact - 1) > 0.05


def test_an_overflow_is_a_skipped_step_at_half_the_scale() -> None:
    """As from another process; the losses are finite, only the gradient is not."""
    training, twin = Training(), Training()
    scaler = LossScale(initial=2.0)
    for run in (training, twin):
        run.step([tiny.batch(seed=1)])
    before = training.state()

    def spoil(tensors: Sequence[Tensor]) -> None:
        tensors[4].view(-1)[0] = math.inf

    for expected in (True, False):  # at a scale of 1 it has another reason
        report = training.step([tiny.batch(seed=2)], settings(average_over_ranks=spoil, scaler=scaler, clip_grad=3.0))
        assert not report.finite and report.scale is not None and report.scale.overflow == expected
        assert scaler.scale == 1 and tiny.same(training.state(), before)
    for run in (training, twin):
        assert run.step([tiny.batch(seed=3)]).finite
    assert tiny.same(training.state(), twin.state())


def test_gradients_are_dropped_and_batches_untouched() -> None:
    training, batch = Training(), tiny.batch()
    before = copy.deepcopy(batch)
    training.step([batch])
    assert all(p.grad is None for p in training.objective.student.parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(vars(batch).values(), vars(before).values(), strict=True) if a is not None
    )


def test_no_global_random_numbers() -> None:
    training = Training()
    state = torch.get_rng_state()
    training.step([tiny.batch(drop_path=drop_path_factors(0.3, 2, 4, 3, torch.Generator().manual_seed(0)))])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "options", [{}, {"balance": "sinkhorn"}, {"head_options": {"norm": "batch"}}, {"patch": "none"}]
)
def test_a_frozen_backbone_stays_bit_for_bit_while_the_head_learns(options: dict[str, Any]) -> None:
    training = Training(**options)
    training.objective.teacher.backbone.cls_token[0, 0, 0] = -0.0
    before = tiny.snapshot(training.objective)
    for seed in range(3):
        report = training.step([tiny.batch(seed=seed)], freeze_backbone=True)
        assert report.finite and report.grad_norm > 0
    after = tiny.snapshot(training.objective)
    for name, value in before.items():
        if ".backbone." in name:
            assert value.view(torch.int32).equal(after[name].view(torch.int32)), name
        elif name.endswith("weight_v"):
            assert not torch.equal(value, after[name]), name
    backbone = {id(p) for p in training.objective.student.backbone.parameters()}
    assert not any(id(p) in backbone for p in training.optimizer.state)


def test_the_head_of_a_frozen_backbone_learns_what_it_learns_otherwise() -> None:
    training, twin = Training(), Training()
    training.step([tiny.batch()], freeze_backbone=True)
    twin.step([tiny.batch()])
    for student, other in zip(*(t.objective.student.head.parameters() for t in (training, twin)), strict=True):
        torch.testing.assert_close(student, other)
    moments = training.step([tiny.batch(seed=1)]).grad_norm
    assert moments > 0 and len(training.optimizer.state) == len(list(training.objective.student.parameters()))


def test_nothing_is_kept_of_a_frozen_backbone() -> None:
    objective = tiny.objective()
    cls, _ = student_scores(objective, tiny.batch(), frozen=True)
    cls.sum().backward()
    assert all(p.grad is None for p in objective.student.backbone.parameters())
    assert any(p.grad is not None for p in objective.student.head.parameters())
    expected = student_scores(tiny.objective(), tiny.batch())[0]
    assert torch.equal(cls, expected)
