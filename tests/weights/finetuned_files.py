"""Small fine-tuned checkpoints for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ibot_cli.core.classifier import Classifier, Pooling
from ibot_cli.runs.checkpoint import CheckpointStore
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.weights.finetuned import ClassifierShape, ImagePreparation, pack
from ibot_cli.weights.shapes import BackboneShape

BACKBONE = BackboneShape(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=16, depth=2, heads=2)
IMAGES = ImagePreparation(channels=1, image_size=16, mean=(0.3,), std=(0.4,), crop_ratio=0.9)


def classifier(seed: int, classes: int, pooling: Pooling, projection: int | None) -> tuple[ClassifierShape, Classifier]:
    shape = ClassifierShape(backbone=BACKBONE, num_classes=classes, pooling=pooling, projection=projection)
    torch.manual_seed(seed)
    return shape, shape.build(head_init_scale=1.0)


def write_run(
    folder: Path,
    classes: tuple[str, ...] = ("dark", "light", "odd"),
    *,
    seed: int = 0,
    pooling: Pooling = "mean",
    projection: int | None = None,
    **changes: Any,
) -> Classifier:
    """A run directory with one checkpoint; returns its network."""
    shape, model = classifier(seed, len(classes), pooling, projection)
    directory = RunDirectory.create(folder)
    directory.write_config("{}\n")
    state = {**pack(shape, classes, IMAGES), "model": model.state_dict(), **changes}
    CheckpointStore(directory.checkpoints).save(state, step=12, epoch=3)
    return model.eval()
