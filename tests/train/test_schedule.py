"""A run's schedules at every step against the tables of sections 1.4 and 3.2."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ibot_cli.config.schema import ObjectiveConfig, OptimConfig
from ibot_cli.train.schedule import Schedule
from tests import reference

EPOCHS, STEPS = 8, 5
OPTIM = OptimConfig(lr=5e-4, min_lr=1e-6, warmup_epochs=2, freeze_prototypes_epochs=1)
OBJECTIVE = ObjectiveConfig(
    teacher_temp=0.07,
    teacher_patch_temp=0.06,
    warmup_teacher_temp=0.04,
    warmup_teacher_patch_temp=0.03,
    teacher_temp_warmup_epochs=4,
)


def schedule(mask_start_epoch: int = 0, batch_size: int = 1024) -> Schedule:
    return Schedule(
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        batch_size=batch_size,
        mask_start_epoch=mask_start_epoch,
        optim=OPTIM,
        objective=OBJECTIVE,
    )


@pytest.mark.parametrize("mask_start_epoch", [0, 3])
def test_every_value_at_every_step(mask_start_epoch: int) -> None:
    run = schedule(mask_start_epoch)
    assert run.total_steps == EPOCHS * STEPS
    values = [run.now(step) for step in range(run.total_steps)]
    tables = {
        "lr": reference.cosine_table(5e-4 * 1024 / 256, 1e-6, EPOCHS, STEPS, 2),
        "weight_decay": reference.cosine_table(0.04, 0.4, EPOCHS, STEPS),
        "teacher_momentum": reference.cosine_table(0.996, 1.0, EPOCHS, STEPS),
        "teacher_temp": np.repeat(reference.temp_table(0.04, 0.07, 4, EPOCHS), STEPS),
        "teacher_patch_temp": np.repeat(reference.temp_table(0.03, 0.06, 4, EPOCHS, mask_start_epoch), STEPS),
    }
    for name, table in tables.items():
        np.testing.assert_allclose([getattr(now, name) for now in values], table, rtol=1e-12, atol=1e-18, err_msg=name)


def test_prototypes_are_frozen_in_the_first_epochs() -> None:
    frozen = [schedule().now(step).freeze_prototypes for step in range(EPOCHS * STEPS)]
    assert frozen == [True] * STEPS + [False] * (EPOCHS - 1) * STEPS
    never = replace(schedule(), optim=replace(OPTIM, freeze_prototypes_epochs=0))
    assert not never.now(0).freeze_prototypes


def test_peak_learning_rate_scales_with_the_batch_and_its_end_does_not() -> None:
    small, large = schedule(batch_size=64), schedule(batch_size=256)
    assert large.now(9).lr == pytest.approx(5e-4) and small.now(9).lr == pytest.approx(5e-4 / 4)
    floors = [replace(s, optim=replace(OPTIM, min_lr=1e-4, lr=1e-3)).now(39).lr for s in (small, large)]
    assert floors[0] == pytest.approx(1e-4, rel=0.03) and floors[1] == pytest.approx(1e-4, rel=0.03)


def test_without_warm_up_the_peak_comes_first() -> None:
    run = replace(
        schedule(),
        optim=replace(OPTIM, warmup_epochs=0),
        objective=replace(OBJECTIVE, teacher_temp_warmup_epochs=0),
    )
    assert run.now(0).lr == pytest.approx(5e-4 * 4)
    assert (run.now(0).teacher_temp, run.now(0).teacher_patch_temp) == (0.07, 0.06)


def test_a_frozen_backbone_thaws_before_the_warm_up() -> None:
    frozen = 3
    run = replace(schedule(), freeze_backbone_epochs=frozen)
    rates = [run.now(step).lr for step in range(run.total_steps)]
    peak, first = 5e-4 * 1024 / 256, frozen * STEPS
    assert [run.now(step).freeze_backbone for step in (0, first - 1, first)] == [True, True, False]
    assert rates[0] == 0 and rates[: first // 2] == sorted(rates[: first // 2])
    assert rates[first // 2 : first] == pytest.approx([peak] * (first - first // 2))
    np.testing.assert_allclose(
        rates[first:], reference.cosine_table(peak, 1e-6, EPOCHS - frozen, STEPS, 2), rtol=1e-12, atol=1e-18
    )
    quick = replace(run, head_lr=5e-3)
    assert [quick.now(step).lr for step in range(first)] == pytest.approx([10 * rate for rate in rates[:first]])
    assert [quick.now(step).lr for step in range(first, run.total_steps)] == rates[first:]
    momenta = [run.now(step).teacher_momentum for step in range(run.total_steps)]
    assert set(momenta[:first]) == {1 - 4 / first} and 1 - 4 / first < momenta[first]  # the teacher's head comes along
    slow = replace(run, objective=replace(run.objective, teacher_momentum=0.5))
    assert slow.now(0).teacher_momentum == 0.5  # never slower than elsewhere
    assert momenta[first:] == [schedule().now(step).teacher_momentum for step in range(first, run.total_steps)]
    others = ("weight_decay", "teacher_temp", "freeze_prototypes")
    for step in range(run.total_steps):
        assert all(getattr(run.now(step), name) == getattr(schedule().now(step), name) for name in others)
