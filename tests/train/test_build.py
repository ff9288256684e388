"""Networks of a configuration, and what is loaded from their checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ibot_cli.config.load import flatten
from ibot_cli.config.schema import Config, DataConfig, HeadConfig, ModelConfig, ViewsConfig
from ibot_cli.core.vit import ViT
from ibot_cli.runs.checkpoint import CheckpointStore
from ibot_cli.train.build import network_of, objective_of
from ibot_cli.weights.load import load_weights
from tests.core import tiny

CONFIG = replace(
    Config(),
    data=DataConfig(channels=1),
    views=ViewsConfig(global_size=16, local_size=8),
    model=ModelConfig(arch="vit_tiny", patch_size=4, width=24, depth=2, heads=2, registers=3),
    head=HeadConfig(prototypes=12, hidden_size=16, bottleneck_size=8),
)


def test_a_checkpoint_with_registers_is_loaded_as_it_was_built(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = network_of(CONFIG, mask_token=False).eval()
    tiny.scatter(teacher, 0)
    state = {"config": flatten(CONFIG), "teacher": teacher.state_dict()}
    loaded = load_weights(str(CheckpointStore(tmp_path).save(state, step=1, epoch=0)))
    assert isinstance(loaded.backbone, ViT) and loaded.backbone.registers == 3
    assert loaded.shape is not None and loaded.shape.registers == 3
    images = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded.backbone(images), teacher.backbone(images))


def test_registers_of_student_and_teacher_are_the_same_at_the_start_and_learn() -> None:
    objective = objective_of(CONFIG)
    student, teacher = objective.student.backbone.register_tokens, objective.teacher.backbone.register_tokens
    assert student.shape == (1, 3, 24) and torch.equal(student, teacher)
    terms = objective.losses(tiny.batch(), tiny.now()).terms
    sum(terms.values()).backward()
    assert student.grad.abs().max() > 0 and teacher.grad is None
