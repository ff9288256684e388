"""Small networks whose state is known because it was made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ibot_cli.config.load import flatten, to_yaml
from ibot_cli.config.schema import Config, DataConfig, HeadConfig, ModelConfig, ViewsConfig
from ibot_cli.core.heads import Head
from ibot_cli.runs.checkpoint import CheckpointStore
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.weights.shapes import BackboneShape

SHAPE = BackboneShape(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=32, depth=2, heads=2)
CONFIG = Config(
    data=DataConfig(channels=1, mean=(0.3,), std=(0.35,), eval_crop_ratio=1.0),
    views=ViewsConfig(global_size=16, local_size=8),
    model=ModelConfig(arch="vit_tiny", patch_size=4, width=32, depth=2, heads=2),
    head=HeadConfig(prototypes=40, hidden_size=24, bottleneck_size=16),
)


def fresh(seed: int = 0) -> dict[str, Tensor]:
    """A backbone (`backbone.*`) and a head (`head.*`) as before training."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        backbone, head = SHAPE.build(), Head(32, 40, hidden_size=24, bottleneck_size=16)
    named = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    return named | {f"head.{name}": value for name, value in head.state_dict().items()}


def with_structure(tensors: Mapping[str, Tensor], seed: int = 1) -> dict[str, Tensor]:
    """Each matrix of the blocks with one strong direction, as training leaves them, and norms that have moved."""
    generator = torch.Generator().manual_seed(seed)
    changed = dict(tensors)
    for name, value in tensors.items():
        if name.startswith("backbone.blocks.") and value.ndim == 2:
            left, right = (torch.randn(size, generator=generator) for size in value.shape)
            changed[name] = value + 0.012 * torch.outer(left, right)
        elif ".norm" in name:
            changed[name] = value + 0.05 * torch.randn(value.shape, generator=generator)
    return changed


def silenced(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Features that hardly depend on the image: nearly everything is the bias of the final norm."""
    return {
        **tensors,
        "backbone.norm.weight": torch.full((32,), 1e-3),
        "backbone.norm.bias": torch.linspace(-1, 1, 32),
    }


def write_run(folder: Path, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], *, step: int = 120) -> Path:
    """A run of `ibot pretrain` with one checkpoint."""
    directory = RunDirectory.create(folder)
    directory.write_config(to_yaml(CONFIG))
    masked = {"backbone.masked_embed": nn.Parameter(torch.zeros(1, 32)).detach()}
    state = {"config": flatten(CONFIG), "student": {**student, **masked}, "teacher": dict(teacher)}
    CheckpointStore(directory.checkpoints).save(state, step=step, epoch=3)
    return folder
