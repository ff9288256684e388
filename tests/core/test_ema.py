from __future__ import annotations

import pytest
import torch
from torch import nn

from ibot_cli.core.ema import move_together, move_towards, shared_parameters
from tests.core import tiny


def test_moving_average_by_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = [torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)]
    student = [torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)]
    expected = [0.996 * t + (1 - 0.996) * s for t, s in zip(teacher, student, strict=True)]
    move_towards(teacher, student, torch.tensor(0.004))
    for ours, theirs in zip(teacher, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_zero_step_changes_no_bit() -> None:
    teacher = [torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1e-3]
    before = teacher[0].clone()
    move_towards(teacher, [torch.randn(1000) * 1e3], torch.tensor(0.0))
    assert torch.equal(teacher[0], before)


def test_the_form_for_devices_gives_the_same_bits_and_leaves_the_student_alone() -> None:
    student, teacher, twin = (tiny.vit(mask_token=False) for _ in range(3))
    tiny.scatter(student, 1)
    twin.load_state_dict(teacher.state_dict())
    before = tiny.snapshot(student)
    ours, theirs, others = ([p.detach() for p in network.parameters()] for network in (student, teacher, twin))
    for step_size in (0.004, 0.0):
        move_towards(theirs, ours, torch.tensor(step_size))
        move_together(others, ours, torch.tensor(step_size))
        assert all(torch.equal(a, b) for a, b in zip(theirs, others, strict=True))
    assert tiny.same(before, tiny.snapshot(student))
    move_together([], [], torch.tensor(0.004))


def test_pairs_are_matched_by_name_without_the_mask_token() -> None:
    student, teacher = tiny.vit(mask_token=True), tiny.vit(mask_token=False)
    ours, theirs = shared_parameters(student, teacher)
    names = [name for name, _ in student.named_parameters() if name != "masked_embed"]
    assert len(ours) == len(theirs) == len(names) == len(list(teacher.parameters()))
    assert all(a is dict(student.named_parameters())[name] for a, name in zip(ours, names, strict=True))


def test_a_teacher_with_more_than_the_student_is_refused() -> None:
    with pytest.raises(ValueError, match="teacher has parameters"):
        shared_parameters(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
