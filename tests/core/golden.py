"""Loads the recorded numbers of the official implementation into our objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.batch import Batch
from ibot_cli.core.heads import Head
from ibot_cli.core.objective import Network, Objective

FOLDER = Path(__file__).parent.parent / "data" / "golden"
FILES = ["ibot_tiny.pt", "ibot_tiny_two_views.pt"]


def load(name: str) -> dict[str, Any]:
    return torch.load(FOLDER / name, weights_only=True)


def build_network(meta: dict[str, Any], mask_token: bool) -> Network:
    backbone = build_backbone(
        arch="vit_tiny",
        image_size=meta["img_size"],
        patch_size=meta["patch_size"],
        width=meta["embed_dim"],
        depth=meta["depth"],
        heads=meta["num_heads"],
        mask_token=mask_token,
    )
    head = Head(
        meta["embed_dim"],
        meta["out_dim"],
        hidden_size=meta["head_hidden_dim"],
        bottleneck_size=meta["head_bottleneck_dim"],
        trainable_norm=not meta["norm_last_layer"],
    )
    return Network(backbone, head)


def load_network(network: Network, state: dict[str, torch.Tensor]) -> None:
    """Strictly; the shared prototypes appear under two names in the file."""
    ours = {k: v for k, v in state.items() if "last_layer2" not in k}
    for name in ("weight_g", "weight_v"):
        assert torch.equal(state[f"head.last_layer.{name}"], state[f"head.last_layer2.{name}"])
    network.load_state_dict(ours, strict=True)


def build_objective(golden: dict[str, Any], **options: Any) -> Objective:
    meta = golden["meta"]
    student, teacher = build_network(meta, mask_token=True), build_network(meta, mask_token=False)
    objective = Objective(
        student,
        teacher,
        center_momentum=meta["center_momentum"],
        patch_center_momentum=meta["center_momentum"],
        student_temp=meta["student_temp"],
        **options,
    )
    load_network(student, golden["student_before"])
    load_network(teacher, golden["teacher_before"])
    objective.center.copy_(golden["center_before"])
    objective.patch_center.copy_(golden["center2_before"].reshape(1, -1))
    return objective


def batch_of(step: dict[str, Any]) -> Batch:
    views = step["global_views"]
    local = step["local_views"]
    return Batch.make(views, views[:0] if local is None else local, step["masks"])
