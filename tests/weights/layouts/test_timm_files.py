"""Folders and files that timm itself saves, against what timm computes from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import Tensor

from ibot_cli.core import swin
from ibot_cli.data.sources import open_source
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import WeightsError
from ibot_cli.weights.load import LoadedBackbone, load_weights
from ibot_cli.weights.timm_models import TimmBackbone

TOLERANCE = 1e-5
VIT, SWIN = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
BLOCKS = {"embed_dim": 32, "depth": 2, "num_heads": 2}
SMALL = {**BLOCKS, "img_size": 32, "patch_size": 8}
NARROW = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "img_size": 64, "window_size": 2}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "backbone": (VIT, {**SMALL, "num_classes": 0}),
    "classifier": (VIT, {**SMALL, "num_classes": 3}),
    "grey": (VIT, {**SMALL, "in_chans": 1}),
    "no bias": (VIT, {**SMALL, "qkv_bias": False}),
    "layer scale": ("vit_small_patch14_dinov2", {**BLOCKS, "img_size": 28}),
    "registers": ("vit_small_patch14_reg4_dinov2", {**BLOCKS, "img_size": 56}),
    "no class position": ("deit3_small_patch16_224", {**BLOCKS, "img_size": 32}),
    "swin": (SWIN, {**NARROW, "num_classes": 3}),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "average": (VIT, {**SMALL, "num_classes": 3, "global_pool": "avg"}),
    "norm before": ("vit_base_patch32_clip_224", {**BLOCKS, "img_size": 64}),
    "wide mlp": (VIT, {**SMALL, "mlp_ratio": 6}),
    "attention pool": ("vit_base_patch16_siglip_224", {**BLOCKS, "img_size": 32}),
    "beit": ("beit_base_patch16_224", {**SMALL, "num_classes": 3}),
    "convolutions": ("resnet10t", {"num_classes": 3}),
}


@pytest.fixture(autouse=True)
def narrow_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(swin.SIZES, "swin_tiny", swin.Size(16, (2, 2, 2, 2), (1, 2, 4, 8)))


def built(name: str, kwargs: dict[str, Any]) -> Any:
    """A model with every parameter away from its initial value."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = timm.create_model(name, **kwargs).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def pictures(loaded: LoadedBackbone) -> Tensor:
    source = open_source("builtin:photos", channels=loaded.channels)
    transform = eval_transform(*loaded.preparation)
    return torch.stack([transform(source.read(index)) for index in (0, 700)])


@torch.no_grad()
def check_feature(model: Any, loaded: LoadedBackbone) -> Tensor:
    """Token 0 is what timm's classifier sees; returns all tokens of timm."""
    images = pictures(loaded)
    tokens = model.forward_features(images)
    feature = model.forward_head(tokens, pre_logits=True)
    found = loaded.backbone(images)
    assert (found[:, 0] - feature).abs().max() <= TOLERANCE * feature.abs().max()
    return found


@pytest.mark.parametrize("name", OURS)
def test_what_our_networks_compute_becomes_ours(name: str, tmp_path: Path) -> None:
    model = built(*OURS[name])
    save_for_hf(model, str(tmp_path), safe_serialization=name != "classifier")
    loaded = load_weights(str(tmp_path))
    assert loaded.shape is not None and loaded.origin.layout == f"timm model ({OURS[name][0]})"
    found, images = check_feature(model, loaded), pictures(loaded)
    with torch.no_grad():
        tokens = model.forward_features(images)
    patches = tokens.flatten(1, 2) if name == "swin" else tokens[:, model.num_prefix_tokens :]
    assert (found[:, 1:] - patches).abs().max() <= TOLERANCE * patches.abs().max()
    assert set(loaded.unused) == {key for key in model.state_dict() if key.startswith("head.")}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "convolutions" else ()) for name in OTHERS]
)
def test_other_models_stay_those_of_timm(name: str, tmp_path: Path) -> None:
    model = built(*OTHERS[name])
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    loaded = load_weights(str(tmp_path))
    assert loaded.shape is None and isinstance(loaded.backbone, TimmBackbone)
    check_feature(model, loaded)


def test_preparation_is_what_the_folder_says(tmp_path: Path) -> None:
    model = built(VIT, SMALL)
    data = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.8, "interpolation": "bilinear"}
    save_for_hf(model, str(tmp_path), safe_serialization=True, data_config=data)
    loaded = load_weights(f"timm:local-dir:{tmp_path}")
    assert loaded.preparation == (32, 0.8, 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert any("bilinear" in note for note in loaded.notes)
    content = json.loads((tmp_path / "config.json").read_text())
    flat = {**content["pretrained_cfg"], "architecture": VIT}  # as early folders are; only the name builds it
    (tmp_path / "config.json").write_text(json.dumps(flat))
    with pytest.raises(WeightsError, match="of another shape"):
        load_weights(str(tmp_path))


def test_earlier_names_are_read_as_timm_reads_them(tmp_path: Path) -> None:
    """The authors' Swin reduces at the end of a stage and keeps tables; timm translates that for its own models."""
    model = built(SWIN, {**NARROW, "num_classes": 3})
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    expected = load_weights(str(tmp_path))
    tensors = {}
    for name, value in load_file(tmp_path / "model.safetensors").items():
        for stage in (1, 2, 3):
            name = name.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample")
        tensors[name.replace("head.fc", "head")] = value
    save_file(tensors | {"layers.0.blocks.1.attn_mask": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert load_weights(str(tmp_path)).weights_hash == expected.weights_hash


@pytest.mark.parametrize("name", ["layer scale", "registers", "no class position", "swin"])
def test_bare_files_with_timm_s_own_names(name: str, tmp_path: Path) -> None:
    model = built(*OURS[name])
    for file in ("bare.safetensors", "bare.pth"):
        if file.endswith("pth"):
            torch.save({"state_dict": model.state_dict()}, tmp_path / file)
        else:
            save_file(model.state_dict(), tmp_path / file)
        loaded = load_weights(str(tmp_path / file), heads=2)
        assert loaded.shape is not None and loaded.mean == (0.485, 0.456, 0.406)
        check_feature(model, loaded)


def test_a_bare_file_of_an_averaging_network_gives_the_average(tmp_path: Path) -> None:
    model = built(VIT, {**SMALL, "num_classes": 0, "global_pool": "avg"})
    save_file(model.state_dict(), tmp_path / "bare.safetensors")
    loaded = load_weights(str(tmp_path / "bare.safetensors"), heads=2)
    assert loaded.shape is None
    check_feature(model, loaded)


def test_a_file_that_names_its_model(tmp_path: Path) -> None:
    model = built(VIT, {**SMALL, "num_classes": 0})
    save_file(model.state_dict(), tmp_path / "a.safetensors", {"timm": json.dumps({"name": VIT, "kwargs": SMALL})})
    check_feature(model, load_weights(str(tmp_path / "a.safetensors")))
    save_file(model.state_dict(), tmp_path / "b.safetensors", {"timm": "vit"})
    with pytest.raises(WeightsError, match="does not say which model of timm it is"):
        load_weights(str(tmp_path / "b.safetensors"))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"architecture": "vit_nano"}, "a model 'vit_nano', which timm .* does not have"),
        ({"architecture": "hf-hub:timm/resnet10t"}, "which timm .* does not have"),
        ({"model_args": {**SMALL, "checkpoint_path": "/etc/passwd"}}, "do more than build a model: checkpoint_path"),
        ({"model_args": {**SMALL, "colour": 1}}, "timm cannot build vit_tiny_patch16_224"),
        ({"model_args": {**SMALL, "depth": 3}}, r"missing: backbone\.blocks\.2\.attn"),
        ({"model_args": {**SMALL, "img_size": [32, 64]}}, r"\[32, 64\] is no square"),
    ],
)
def test_folders_that_cannot_be_read(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    save_for_hf(built(VIT, {**SMALL, "num_classes": 0}), str(tmp_path), safe_serialization=True)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | changes))
    with pytest.raises(WeightsError, match=match):
        load_weights(str(tmp_path))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    save_for_hf(built(VIT, SMALL), str(tmp_path))

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("executed",)

    torch.save({"a": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="which is not executed"):
        load_weights(str(tmp_path))
