from __future__ import annotations

import pytest
import torch
from torch import nn

from ibot_cli.core.ema import move_towards, shared_parameters
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


def test_it_rounds_as_an_interpolation_tensor_by_tensor_and_leaves_the_student_alone() -> None:
    student, teacher = tiny.vit(mask_token=False), tiny.vit(mask_token=False)
    tiny.scatter(student, 1)
    before = tiny.snapshot(student)
    ours, theirs = ([p.detach() for p in network.parameters()] for network in (student, teacher))
    expected = [target.lerp(source, torch.tensor(0.004)) for source, target in zip(ours, theirs, strict=True)]
    move_towards(theirs, ours, torch.tensor(0.004))
    assert all(torch.equal(a, b) for a, b in zip(theirs, expected, strict=True))
    assert tiny.same(before, tiny.snapshot(student))
    move_towards([], [], torch.tensor(0.004))


def test_pairs_are_matched_by_name_without_the_mask_token() -> None:
    student, teacher = tiny.vit(mask_token=True), tiny.vit(mask_token=False)
    ours, theirs = shared_parameters(student, teacher)
    names = [name for name, _ in student.named_parameters() if name != "masked_embed"]
    assert len(ours) == len(theirs) == len(names) == len(list(teacher.parameters()))
    assert all(a is dict(student.named_parameters())[name] for a, name in zip(ours, names, strict=True))


def test_a_teacher_with_more_than_the_student_is_refused() -> None:
    with pytest.raises(ValueError, match="teacher has parameters"):
        shared_parameters(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
