"""MAE's files. The oracle is timm's ViT: MAE's code has its names and computes the same."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from ibot_cli.errors import WeightsError
from ibot_cli.weights.files import METADATA
from ibot_cli.weights.layouts import mae
from ibot_cli.weights.load import load_weights

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def timm_vit(**changes: object) -> torch.nn.Module:
    kwargs = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", **{**kwargs, **changes}).eval()
        for value in model.parameters():
            value.data.normal_(std=0.3)
    return model


def decoder() -> dict[str, Tensor]:
    """Names of the authors' `MaskedAutoencoderViT`."""
    names = [
        "mask_token", "decoder_pos_embed", "decoder_embed.weight", "decoder_embed.bias",
        "decoder_blocks.0.norm1.weight", "decoder_blocks.0.attn.qkv.weight", "decoder_norm.weight",
        "decoder_pred.weight", "decoder_pred.bias",
    ]  # fmt: skip
    return dict.fromkeys(names, torch.ones(1, 1, 8))


def save(tmp_path: Path, content: object) -> str:
    torch.save(content, tmp_path / "mae.pth")
    return str(tmp_path / "mae.pth")


@pytest.mark.parametrize("heads", ["asked", "arguments"])
def test_full_checkpoint(tmp_path: Path, heads: str) -> None:
    model = timm_vit()
    args = argparse.Namespace(model="mae_vit_base_patch16", output_dir="out", num_heads=2)
    content = {"model": model.state_dict() | decoder(), "optimizer": {"state": {}}, "epoch": 799, "scaler": {}}
    content |= {"args": args} if heads == "arguments" else {}
    loaded = load_weights(save(tmp_path, content), heads=2 if heads == "asked" else None)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(IMAGES), model.forward_features(IMAGES), rtol=1e-5, atol=1e-6)
    assert set(loaded.unused) == decoder().keys()
    assert loaded.mask_token is None and loaded.head is None  # the mask token is as wide as the decoder
    assert (loaded.origin.method, loaded.origin.epoch) == ("MAE", 799)
    assert loaded.origin.arguments.get("model") == (None if heads == "asked" else "mae_vit_base_patch16")


def test_encoder_without_decoder(tmp_path: Path) -> None:
    model = timm_vit()
    loaded = load_weights(save(tmp_path, {"model": model.state_dict()}), heads=2)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(IMAGES), model.forward_features(IMAGES), rtol=1e-5, atol=1e-6)
    assert loaded.unused == () and loaded.origin.method is None


def test_a_tensor_too_many_is_refused(tmp_path: Path) -> None:
    state = timm_vit().state_dict() | decoder() | {"blocks.0.attn.gate": torch.ones(16)}
    with pytest.raises(WeightsError, match=r"unexpected: backbone\.blocks\.0\.attn\.gate"):
        load_weights(save(tmp_path, {"model": state}), heads=2)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_fine_tuned_on_the_mean_of_the_patches(tmp_path: Path, prefix: str) -> None:
    model = timm_vit(num_classes=5, global_pool="avg")
    assert "fc_norm.weight" in model.state_dict() and "norm.weight" not in model.state_dict()
    content = {"model": {prefix + name: value for name, value in model.state_dict().items()}, "epoch": 99}
    loaded = load_weights(save(tmp_path, content), heads=2)
    assert loaded.classes == ("0", "1", "2", "3", "4") and loaded.classifier is not None
    with torch.no_grad():
        torch.testing.assert_close(loaded.classifier(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)
        feature = model.forward_head(model.forward_features(IMAGES), pre_logits=True)
        torch.testing.assert_close(loaded.backbone(IMAGES)[:, 0], feature, rtol=1e-5, atol=1e-6)
    assert loaded.notes == ["The file names no classes; they are called by their numbers."]
    assert loaded.origin.method == "supervised"


def test_a_head_of_another_kind(tmp_path: Path) -> None:
    state = timm_vit(num_classes=5, global_pool="avg").state_dict()
    state["head.weight"] = torch.ones(5)
    with pytest.raises(WeightsError, match=r"is no linear layer: head\.weight is \[5\]"):
        load_weights(save(tmp_path, {"model": state}), heads=2)


def test_a_file_that_says_what_it_is_belongs_to_another_layout() -> None:
    content = {"state_dict": timm_vit(num_classes=5, global_pool="avg").state_dict()}
    assert mae.matches(content)
    assert mae.matches({**content, METADATA: {"format": "pt"}})
    assert not mae.matches({**content, METADATA: {"format": "pt", "timm": "{}"}})
