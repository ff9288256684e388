"""Which reader takes which file: names of each layout alone, in the order of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ibot_cli.weights.files import METADATA
from ibot_cli.weights.load import FILE_LAYOUTS, FOLDER_LAYOUTS

VIT = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.attn.qkv.weight")
NORM = ("norm.weight", "norm.bias")
CLASSIFIER = ("head.weight", "head.bias")


def state(*names: str, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: torch.ones(1) for name in names}


OFFICIAL = state(*VIT, *NORM, "masked_embed", prefix="backbone.")
FILES: dict[str, tuple[Any, str]] = {
    "ours": ({"kind": "ibot-checkpoint", "state": {"student": OFFICIAL, "teacher": OFFICIAL}}, "ours"),
    "export": ({"state_dict": OFFICIAL, METADATA: {"ibot": "{}"}}, "native"),
    "iBOT": ({"student": OFFICIAL, "teacher": OFFICIAL, "ibot_loss": {}}, "official"),
    "DINO": ({"student": OFFICIAL, "teacher": OFFICIAL, "dino_loss": {}}, "official"),
    "extracted": ({"state_dict": state(*VIT, *NORM)}, "official"),
    "flat": (state(*VIT, *NORM), "official"),
    "Swin": (state("patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"), "official"),
    "DINOv2": (state(*VIT, *NORM, "mask_token", "blocks.0.ls1.gamma"), "dinov2"),
    "DINOv2 registers": (state(*VIT, *NORM, "mask_token", "register_tokens"), "dinov2"),
    "DINOv2 training": ({"teacher": state(*VIT, "mask_token", prefix="backbone.")}, "dinov2"),
    "BEiT": ({"model": state(*VIT[2:], *NORM, "blocks.0.attn.q_bias", "mask_token", "lm_head.weight")}, "beit"),
    "MAE": ({"model": state(*VIT, *NORM, "mask_token", "decoder_pred.weight")}, "mae"),
    "MAE encoder": ({"model": state(*VIT, *NORM)}, "official"),
    "fine-tuned": ({"model": state(*VIT, "fc_norm.weight", "fc_norm.bias", *CLASSIFIER)}, "mae"),
    "timm export": ({"state_dict": state(*VIT, *NORM), METADATA: {"timm": "{}"}}, "timm_files"),
    "Hugging Face": (state("embeddings.patch_embeddings.projection.weight"), "huggingface"),
    "ResNet": (state("conv1.weight", "layer1.0.conv1.weight"), "official"),
    "nothing": ({"epoch": 3}, "official"),
}
FOLDERS = {
    "run": ({"config.yaml": "{}"}, "ours"),
    "checkpoints": ({"step-00000001.pt": ""}, "ours"),
    "Hugging Face": ({"config.json": '{"model_type": "vit"}'}, "huggingface"),
    "timm": ({"config.json": '{"architecture": "vit_tiny_patch16_224"}'}, "timm_files"),
    "other": ({"photo.png": ""}, None),
}


def reader(layout: Any) -> str:
    return str(layout.read.__module__.rpartition(".")[2])


@pytest.mark.parametrize("name", FILES)
def test_files(name: str) -> None:
    content, expected = FILES[name]
    assert reader(next(layout for layout in FILE_LAYOUTS if layout.matches(content))) == expected


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(tmp_path: Path, name: str) -> None:
    files, expected = FOLDERS[name]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    chosen = next((layout for layout in FOLDER_LAYOUTS if layout.matches(tmp_path)), None)
    assert (None if chosen is None else reader(chosen)) == expected
