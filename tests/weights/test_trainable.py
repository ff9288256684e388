"""Weights of any origin as the start of a fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch
from torch.nn import functional

from ibot_cli.core import swin
from ibot_cli.core.backbone import build_backbone
from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.weights.load import load_weights
from ibot_cli.weights.trainable import Trainable, at_image_size, resize_positions, trainable
from tests.weights.finetuned_files import write_run


class Miniature(NamedTuple):
    """A Swin in timm's words."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]


MINIATURE = Miniature(8, (1, 1, 2, 2), (1, 2, 2, 2))
MADE: list[torch.nn.Module] = []  # what timm was last asked for
TINY = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 32}
SHAPE = {"arch": "vit_tiny", "image_size": 16, "channels": 3, "patch_size": 4, "width": 16, "depth": 2, "heads": 2}


def from_timm(monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> Trainable:
    """`timm:NAME` as it would be with weights from the network: random ones, none of them zero or one."""
    create = timm.create_model

    def local(name: str, *, pretrained: bool, num_classes: int) -> torch.nn.Module:
        side = options.get("img_size", 224)
        overlay = {"input_size": (3, side, side)}
        torch.manual_seed(0)
        model = create(name, pretrained=False, num_classes=num_classes, pretrained_cfg_overlay=overlay, **options)
        with torch.no_grad():
            for value in model.parameters():
                value.add_(0.2 * torch.randn(value.shape))
        MADE[:] = [model]
        return model

    monkeypatch.setattr(timm, "create_model", local)
    return trainable(load_weights(f"timm:{name}"))


def test_an_official_backbone(tmp_path: Path) -> None:
    backbone = build_backbone(**SHAPE, mask_token=True)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    parts = trainable(load_weights(str(tmp_path / "weights.pth"), heads=2))
    assert "masked_embed" not in parts.tensors and not parts.shape.mask_token
    assert parts.shape.build().load_state_dict(dict(parts.tensors))
    assert torch.equal(parts.tensors["pos_embed"], backbone.pos_embed)


@pytest.mark.parametrize(("pooling", "has_norm"), [("mean", False), ("cls", True)])
def test_a_fine_tuned_run(tmp_path: Path, pooling: str, has_norm: bool) -> None:
    model = write_run(tmp_path / "run", pooling=pooling)
    parts = trainable(load_weights(str(tmp_path / "run")))
    assert ("norm.weight" in parts.tensors) == has_norm
    assert torch.equal(parts.tensors["cls_token"], model.backbone.cls_token)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", TINY),
        ("vit_small_patch14_dinov2", {**TINY, "img_size": 28}),
        ("vit_small_patch14_reg4_dinov2", {**TINY, "img_size": 28}),
        ("vit_tiny_patch16_224", {**TINY, "reg_tokens": 2, "init_values": 0.1}),
        ("deit3_small_patch16_224", TINY),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2, **MINIATURE._asdict()}),
    ],
)
def test_a_plain_model_of_timm(monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]) -> None:
    monkeypatch.setitem(swin.SIZES, "swin_miniature", swin.Size(*MINIATURE))
    parts = from_timm(monkeypatch, name, **options)
    side = options["img_size"]
    assert parts.shape.image_size == side
    ours, theirs, images = parts.shape.build().eval(), MADE[0].eval(), torch.randn(2, 3, side, side)
    assert ours.state_dict().keys() == parts.tensors.keys()
    ours.load_state_dict(dict(parts.tensors))
    with torch.no_grad():
        expected, found = theirs.forward_head(theirs.forward_features(images), pre_logits=True), ours(images)[:, 0]
    assert (found - expected).abs().max() / expected.abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("vit_tiny_patch16_224", {**TINY, "act_layer": "relu"}),
        ("vit_tiny_patch16_224", {**TINY, "qk_norm": True}),
        ("vit_small_patch14_reg4_dinov2", {**TINY, "patch_size": 16, "pre_norm": True}),
        ("vit_tiny_patch16_224", {**TINY, "mlp_ratio": 2}),
        ("vit_tiny_patch16_224", {**TINY, "global_pool": "avg"}),
    ],
)
def test_models_of_timm_that_compute_something_else(
    monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(WeightsError, match=f"timm:{name} has other layers than") as caught:
        from_timm(monkeypatch, name, **options)
    assert "plain ViT or Swin" in str(caught.value.hint)


def test_positions_are_resized_bicubically_and_the_class_tokens_stays(tmp_path: Path) -> None:
    torch.save(build_backbone(**SHAPE).state_dict(), tmp_path / "weights.pth")
    parts = trainable(load_weights(str(tmp_path / "weights.pth"), heads=2))
    larger = at_image_size(parts, 24)
    before, after = parts.tensors["pos_embed"], larger.tensors["pos_embed"]
    assert larger.shape.image_size == 24 and after.shape == (1, 37, 16)
    assert torch.equal(after[:, 0], before[:, 0])
    grid = before[:, 1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    expected = functional.interpolate(grid, size=6, mode="bicubic", align_corners=False)
    torch.testing.assert_close(after[:, 1:].reshape(1, 6, 6, 16).permute(0, 3, 1, 2), expected)
    assert larger.shape.build().load_state_dict(dict(larger.tensors))
    assert at_image_size(parts, 16) is parts
    assert resize_positions(before, 4) is before


def test_an_image_size_that_patches_do_not_fill(tmp_path: Path) -> None:
    torch.save(build_backbone(**SHAPE).state_dict(), tmp_path / "weights.pth")
    parts = trainable(load_weights(str(tmp_path / "weights.pth"), heads=2))
    with pytest.raises(UsageError, match=r"model\.image_size = 18 is no multiple of 4") as caught:
        at_image_size(parts, 18)
    assert caught.value.hint == "Use for example 16."
