"""Parity with the official implementation, on its recorded numbers."""

from __future__ import annotations

import pytest
import torch

from ibot_cli.core.objective import Now
from ibot_cli.core.optim import build_optimizer, parameter_groups
from ibot_cli.core.schedules import teacher_temp
from ibot_cli.train.step import StepSettings, train_step
from tests.core import golden
from tests.core.plain_objective import student_scores


def close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def now_of(meta):
    def temperature(start, final):
        return teacher_temp(
            meta["epoch"], warmup_epochs=meta["warmup_teacher_temp_epochs"], start=meta[start], final=meta[final]
        )

    return Now(
        lr=meta["lr"],
        weight_decay=meta["weight_decay"],
        teacher_temp=temperature("warmup_teacher_temp", "teacher_temp"),
        teacher_patch_temp=temperature("warmup_teacher_patch_temp", "teacher_patch_temp"),
        teacher_momentum=meta["momentum_teacher"],
        freeze_prototypes=False,
    )


@pytest.fixture(params=golden.FILES)
def recorded(request):
    return golden.load(request.param)


def test_teacher_features_and_logits(recorded):
    objective = golden.build_objective(recorded)
    step = recorded["steps"][0]
    teacher = objective.teacher
    with torch.no_grad():
        tokens = teacher.backbone(step["global_views"].flatten(0, 1))
        close(tokens, step["teacher_features_global"])
        close(teacher.head.cls_logits(teacher.head.bottleneck(tokens[:, 0])), step["teacher_cls"])
        close(teacher.head.patch_logits(teacher.head.bottleneck(tokens[:, 1:])), step["teacher_patch"])
        if step["local_views"] is not None:
            local = teacher.backbone(step["local_views"].flatten(0, 1))
            close(local, step["teacher_features_local"])


def test_student_logits_of_cls_and_masked_patches(recorded):
    objective = golden.build_objective(recorded)
    step = recorded["steps"][0]
    with torch.no_grad():
        cls, patch = student_scores(objective, golden.batch_of(step))
    views = len(step["global_views"])
    close(cls[:views].flatten(0, 1), step["student_cls"])
    close(patch, step["student_patch"].flatten(0, 1)[step["masks"].flatten()])
    if step["local_views"] is not None:
        close(cls[views:].flatten(0, 1), step["student_local_cls"])


def test_losses_gradients_centres_and_weights_over_two_steps(recorded):
    meta = recorded["meta"]
    objective = golden.build_objective(recorded)
    optimizer = build_optimizer(objective.student, betas=(0.9, 0.999), eps=1e-8)
    settings = StepSettings(
        clip_grad=meta["clip_grad"], clip_mode="tensor", dtype=None, average_over_ranks=lambda tensors: None
    )
    now = now_of(meta)
    for step in recorded["steps"]:
        batch = golden.batch_of(step)
        outcome = objective.losses(batch, now)
        sum(outcome.terms.values()).backward()
        if step is recorded["steps"][0]:
            named = objective.student.named_parameters()
            tiny = {name: p.grad.abs() < 1e-6 for name, p in named if p.grad is not None}
        for name, parameter in objective.student.named_parameters():
            expected = step["grad_norm_before_clip"].get(name)
            if expected is not None:
                assert parameter.grad.norm().item() == pytest.approx(float(expected), rel=1e-3, abs=1e-5), name
            else:
                assert parameter.grad is None, name
        objective.student.zero_grad()
        report = train_step(objective, optimizer, [batch], now, settings)
        close(report.terms["cls"].item(), step["loss_cls"])
        close(report.terms["patch"].item(), step["loss_patch"])
        assert report.finite
        close(objective.center, step["center_after"], 1e-6)
        close(objective.patch_center, step["center2_after"].reshape(1, -1), 1e-6)
    for network, key in ((objective.student, "student"), (objective.teacher, "teacher")):
        check_weights(network.state_dict(), recorded, key, tiny)


def check_weights(ours, recorded, which, tiny):
    """Everything within 1e-5, with two exceptions that rounding noise explains.

    The key third of qkv biases has a true gradient of zero, which Adam turns into steps of noise: it stays within two
    learning rates. Elements whose first gradient is below 1e-6 suffer the same to a small degree: the recorded run is
    itself up to 1.9e-5 from a float64 run there, and this one up to 1e-5.
    """
    lr, dim = recorded["meta"]["lr"], recorded["meta"]["embed_dim"]
    keys = slice(dim, 2 * dim)
    for name, value in ours.items():
        theirs = recorded[f"{which}_after"][name]
        if name.endswith("attn.qkv.bias"):
            start = recorded["student_before"][name] if which == "student" else theirs
            assert (value[keys] - start[keys]).abs().max() <= 2 * lr, name
            for third in (slice(0, dim), slice(2 * dim, None)):
                close(value[third], theirs[third])
            continue
        loose = (value - theirs).abs() > 1e-5 + 1e-5 * theirs.abs()
        assert not (loose & ~tiny.get(name, torch.zeros_like(loose))).any(), name
        torch.testing.assert_close(value, theirs, atol=3e-5, rtol=1e-5)
        assert loose.sum() <= 1, name


def test_weight_decay_groups_are_the_official_ones(recorded):
    student = golden.build_objective(recorded).student
    names = {id(p): n for n, p in student.named_parameters()}
    groups = [sorted(names[id(p)] for p in group["params"]) for group in parameter_groups(student)]
    assert groups == [sorted(recorded["meta"]["decayed"]), sorted(recorded["meta"]["not_decayed"])]
