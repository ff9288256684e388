"""A network, an objective and batches small enough to be compared number by number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.batch import Batch
from ibot_cli.core.heads import Head
from ibot_cli.core.objective import Network, Now, Objective
from ibot_cli.core.vit import ViT

GRID = 4
PROTOTYPES = 12


def vit(
    mask_token: bool = True, depth: int = 2, channels: int = 1, registers: int = 0, layer_scale: float = 0.0
) -> ViT:
    backbone = build_backbone(
        arch="vit_tiny",
        image_size=16,
        channels=channels,
        patch_size=4,
        width=16,
        depth=depth,
        heads=2,
        mask_token=mask_token,
        registers=registers,
        layer_scale=layer_scale,
    )
    assert isinstance(backbone, ViT)
    return backbone


def head(patch_prototypes: int | None = None, **options: Any) -> Head:
    return Head(16, PROTOTYPES, patch_prototypes, hidden_size=24, bottleneck_size=8, **options)


def scatter(module: torch.nn.Module, seed: int) -> None:
    """Random values everywhere, also where the initialisation has zeros and ones, so that nothing is hidden."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.randn(value.shape, generator=generator), alpha=0.2)


def objective(
    *, seed: int = 0, separate: int | None = None, diverge: bool = True, head_options: Any = None, **options: Any
) -> Objective:
    """Student and teacher; unless `diverge` is false they and the centres differ, as in the middle of training."""
    torch.manual_seed(seed)
    masks = options.get("patch", "online") != "none"
    student = Network(vit(masks), head(separate, **(head_options or {})))
    scatter(student, seed)
    built = Objective(student, Network(vit(False), head(separate, **(head_options or {}))), **options)
    if diverge:
        scatter(built.teacher, seed + 1)
        built.center.normal_(std=0.1)
        built.patch_center.normal_(std=0.1)
    return built


def batch(
    images: int = 3, *, seed: int = 0, num_global: int = 2, num_local: int = 2, drop_path: Tensor | None = None
) -> Batch:
    """Random views; the first image's first view is not masked, the others are to about 0.4."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(num_global, images, GRID**2, generator=generator) < 0.4
    mask[0, 0] = False
    return Batch.make(
        torch.randn(num_global, images, 1, 16, 16, generator=generator),
        torch.randn(num_local, images, 1, 8, 8, generator=generator),
        mask,
        drop_path,
    )


def part(whole: Batch, images: slice) -> Batch:
    """Some images of a batch."""
    drop = None if whole.drop_path is None else whole.drop_path[:, :, :, images]
    return Batch.make(whole.global_views[:, images], whole.local_views[:, images], whole.mask[:, images], drop)


def now(**changes: Any) -> Now:
    values: dict[str, Any] = {
        "lr": 1e-2,
        "weight_decay": 0.1,
        "teacher_temp": 0.05,
        "teacher_patch_temp": 0.06,
        "teacher_momentum": 0.9,
        "freeze_prototypes": False,
    }
    return Now(**{**values, **changes})


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
