"""Small networks with weights that leave nothing at its initial value, as subjects of an export."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from ibot_cli.core import swin
from ibot_cli.core.backbone import Backbone
from ibot_cli.core.classifier import Pooling
from ibot_cli.weights.assembly import assemble
from ibot_cli.weights.export.subject import Subject, export_subject
from ibot_cli.weights.finetuned import ClassifierShape
from ibot_cli.weights.layouts.found import Found, Preparation
from ibot_cli.weights.loaded import LoadedBackbone
from ibot_cli.weights.origin import Origin
from ibot_cli.weights.shapes import BackboneShape

N = TypeVar("N", bound=nn.Module)
CLASSES = ("dark", "light", "odd")
VIT = BackboneShape(arch="vit_tiny", image_size=32, channels=3, patch_size=8, width=32, depth=2, heads=4)
GREY = BackboneShape(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=24, depth=2, heads=2)
REGISTERS = BackboneShape(
    arch="vit_tiny", image_size=28, channels=3, patch_size=14, width=32, depth=2, heads=4, registers=4
)
SCALED = BackboneShape(
    arch="vit_tiny", image_size=28, channels=3, patch_size=14, width=32, depth=2, heads=4, layer_scale=0.5
)
SWIN = BackboneShape(arch="swin_tiny", image_size=64, channels=3, patch_size=4, window_size=2)


@pytest.fixture
def narrow_swin(monkeypatch: pytest.MonkeyPatch) -> BackboneShape:
    """A Swin that is built in no time: `SWIN` in a program whose swin_tiny is narrow."""
    monkeypatch.setitem(swin.SIZES, "swin_tiny", swin.Size(16, (2, 2, 2, 2), (1, 2, 4, 8)))
    return SWIN


def built(shape: BackboneShape, seed: int = 0) -> Backbone:
    """A backbone with every parameter away from its initial value."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return moved(shape.build(), seed).eval()


def loaded_backbone(shape: BackboneShape, seed: int = 0) -> LoadedBackbone:
    """As `load_weights` gives it."""
    tensors = {f"backbone.{name}": value for name, value in built(shape, seed).state_dict().items()}
    return _assembled(shape, shape, tensors)


def loaded_classifier(shape: BackboneShape, pooling: Pooling, projection: int | None = None) -> LoadedBackbone:
    """As `load_weights` gives a fine-tuned network."""
    network = ClassifierShape(backbone=shape, num_classes=len(CLASSES), pooling=pooling, projection=projection)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        tensors = moved(network.build(head_init_scale=1.0), 0).state_dict()
    return _assembled(network, shape, tensors, classes=CLASSES)


def subject_of(shape: BackboneShape, pooling: Pooling | None = None) -> Subject:
    """What is exported: a backbone, or a classifier with that pooling."""
    return export_subject(loaded_backbone(shape) if pooling is None else loaded_classifier(shape, pooling))


def moved(network: N, seed: int) -> N:
    """The same network, all its parameters a little further."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return network


def _assembled(network: Any, shape: BackboneShape, tensors: Any, **fields: Any) -> LoadedBackbone:
    grey = shape.channels == 1
    return assemble(
        Found(
            network=network,
            tensors=tensors,
            origin=Origin(layout="a test", path="memory", method="iBOT", which="teacher", step=3),
            preparation=Preparation(
                mean=(0.3,) if grey else (0.4, 0.45, 0.5),
                std=(0.35,) if grey else (0.2, 0.22, 0.25),
                image_size=shape.image_size,
                crop_ratio=0.9,
            ),
            **fields,
        )
    )
