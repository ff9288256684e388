"""The loss scale: when it moves, by how much, and what it excuses."""

from __future__ import annotations

import math

import pytest
import torch

from ibot_cli.core.scale import LARGEST, LossScale, ScaleReport, restore_scale

LOSSES = torch.tensor([1.0, 2.0])


def update(scale: LossScale, norm: float = 1.0, loss: float = 1.0) -> ScaleReport:
    return scale.update(torch.tensor([loss, 2.0]), torch.tensor(norm))


def test_it_is_doubled_after_so_many_good_steps_in_a_row() -> None:
    scale = LossScale(initial=8.0, growth_interval=3)
    seen = [float(update(scale).scale) for _ in range(7)]
    assert seen == [8, 8, 8, 16, 16, 16, 32]
    update(scale)  # two good steps at 32
    assert update(scale, norm=math.inf).overflow and scale.scale == 16
    assert [float(update(scale).scale) for _ in range(4)] == [16, 16, 16, 32]


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_an_overflow_halves_it_and_reports_the_scale_of_its_step(bad: float) -> None:
    scale = LossScale(initial=8.0)
    report = update(scale, norm=bad)
    assert report.overflow and report.scale == 8 and scale.scale == 4 and scale.steps == 0
    assert not update(scale).overflow and scale.scale == 4


def test_a_scale_of_one_is_no_excuse_and_stays() -> None:
    scale = LossScale(initial=2.0)
    assert update(scale, norm=math.inf).overflow
    assert not update(scale, norm=math.inf).overflow and scale.scale == 1


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_bad_loss_is_no_overflow_and_moves_nothing(bad: float) -> None:
    scale = LossScale(initial=8.0, growth_interval=2)
    update(scale)
    report = update(scale, norm=math.nan, loss=bad)
    assert not report.overflow and scale.scale == 8 and scale.steps == 1


def test_it_does_not_grow_without_bound() -> None:
    scale = LossScale(initial=LARGEST, growth_interval=1)
    update(scale)
    assert scale.scale == LARGEST


def test_its_state_comes_back() -> None:
    scale, other = LossScale(initial=8.0, growth_interval=3), LossScale(growth_interval=3)
    update(scale)
    update(scale)
    restore_scale(other, {name: value.clone() for name, value in scale.state().items()})
    restore_scale(other, None)  # of a checkpoint from before there was one
    restore_scale(None, scale.state())
    for each in (scale, other):
        update(each)
    assert scale.state() == other.state() and scale.scale == 16
