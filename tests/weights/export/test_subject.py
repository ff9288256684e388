"""The network that leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch

from ibot_cli.core.vit import ViT
from ibot_cli.errors import UsageError
from ibot_cli.weights.export.subject import export_subject
from ibot_cli.weights.loaded import LoadedBackbone
from ibot_cli.weights.shapes import BackboneShape
from ibot_cli.weights.timm_models import TimmBackbone
from tests.weights.export.networks import SWIN, VIT, loaded_backbone, loaded_classifier, narrow_swin

__all__ = ["narrow_swin"]


def pixels(size: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def from_timm(name: str, **arguments: Any) -> LoadedBackbone:
    with torch.random.fork_rng(devices=[]):
        backbone = TimmBackbone(timm.create_model(name, num_classes=0, **arguments).eval())
    size = arguments["img_size"]
    return replace(loaded_backbone(VIT), backbone=backbone, shape=None, image_size=size, description=f"timm:{name}")


@torch.no_grad()
def test_tokens_are_those_of_the_loaded_network() -> None:
    loaded = loaded_backbone(VIT)
    outputs = export_subject(loaded).network(pixels(32))
    tokens = loaded.backbone(pixels(32))
    assert torch.equal(outputs["cls"], tokens[:, 0]) and torch.equal(outputs["patches"], tokens[:, 1:])
    assert set(outputs) == {"cls", "patches"}


@torch.no_grad()
def test_at_another_size_it_computes_what_the_native_network_computes_there() -> None:
    loaded = loaded_backbone(VIT)
    subject = export_subject(loaded, 48)
    assert isinstance(loaded.backbone, ViT)
    assert subject.tensors["pos_embed"].shape == (1, 37, 32) and subject.native_image_size == 32
    assert torch.equal(subject.tensors["pos_embed"], loaded.backbone.positions(6, 6))
    found, expected = subject.network(pixels(48))["patches"], loaded.backbone(pixels(48))[:, 1:]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert loaded.backbone.pos_embed.shape[1] == 17 and loaded.image_size == 32


def test_the_windows_of_a_swin_are_laid_out_anew(narrow_swin: BackboneShape) -> None:
    subject = export_subject(loaded_backbone(SWIN), 128)
    blocks = [block for stage in subject.network.backbone.layers for block in stage.blocks]  # type: ignore[union-attr]
    assert blocks[-1].shift_size == (1, 1)  # at 64 pixels the last stage is a single window, which is never shifted
    assert subject.kind == "swin" and subject.stride == 32


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_classifier_gives_its_scores(pooling: Any) -> None:
    loaded = loaded_classifier(VIT, pooling, projection=6 if pooling == "cls" else None)
    assert loaded.classifier is not None
    subject = export_subject(loaded)
    torch.testing.assert_close(
        subject.network(pixels(32))["logits"], loaded.classifier(pixels(32)), atol=1e-6, rtol=1e-6
    )
    assert ("norm.weight" in subject.tensors) == (pooling == "cls") and subject.pooling == pooling


@torch.no_grad()
def test_a_network_of_timm_with_our_layers_is_one_of_ours() -> None:
    loaded = from_timm("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4)
    subject = export_subject(loaded)
    assert subject.shape is not None and subject.shape.heads == 4 and subject.kind == "vit"
    found, expected = subject.network(pixels(32))["cls"], loaded.backbone(pixels(32))[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_another_network_of_timm_leaves_at_its_own_size_only() -> None:
    loaded = from_timm("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4,
                       global_pool="avg")  # fmt: skip
    subject = export_subject(loaded)
    assert subject.shape is None and subject.kind == "other" and not subject.tensors
    with pytest.raises(UsageError, match=r"--image-size 48: timm:vit_tiny_patch16_224 is a network of timm"):
        export_subject(loaded, 48)


def test_what_cannot_leave_is_told(narrow_swin: BackboneShape) -> None:
    with pytest.raises(UsageError, match=r"--image-size 30 is no multiple of 8, the stride of the network\.") as told:
        export_subject(loaded_backbone(VIT), 30)
    assert told.value.hint == "Use for example 32."
    with pytest.raises(UsageError, match=r"--with-head: there is no projection head in memory\."):
        export_subject(loaded_backbone(VIT), with_head=True)
    with pytest.raises(UsageError, match=r"--image-size 32: the network's windows of 2 tokens do not fit") as told:
        export_subject(loaded_backbone(SWIN), 32)
    assert told.value.hint == "Use at least 64."


def test_the_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    export_subject(loaded_backbone(VIT), 48)
    assert torch.equal(before, torch.random.get_rng_state())
