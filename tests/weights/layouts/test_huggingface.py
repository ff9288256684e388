"""Folders that transformers itself saves, against the tokens that it computes from real images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from ibot_cli.core import swin
from ibot_cli.data.sources import open_source
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import WeightsError
from ibot_cli.weights.layouts.found import TimmNetwork
from ibot_cli.weights.load import LoadedBackbone, find_weights, load_weights

TOLERANCE = 1e-5
SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128, "image_size": 32,
    "patch_size": 8, "layer_norm_eps": 1e-6,
}  # fmt: skip
DINO = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
DECODER = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
SWIN = {"embed_dim": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8], "image_size": 64, "window_size": 2}
BEIT = {**SMALL, "use_shared_relative_position_bias": True}
MODELS = {
    "vit": ("ViTModel", SMALL),
    "classifier": ("ViTForImageClassification", {**SMALL, "num_labels": 3}),
    "no bias": ("ViTModel", {**SMALL, "qkv_bias": False}),
    "grey": ("ViTModel", {**SMALL, "num_channels": 1}),
    "msn": ("ViTMSNModel", SMALL),
    "mae": ("ViTMAEModel", {**SMALL, "mask_ratio": 0.0}),
    "mae decoder": ("ViTMAEForPreTraining", {**SMALL, **DECODER, "mask_ratio": 0.0}),
    "dinov2": ("Dinov2Model", DINO),
    "registers": ("Dinov2WithRegistersModel", DINO),
    "gated": ("Dinov2Model", {**DINO, "use_swiglu_ffn": True}),
    "swin": ("SwinModel", SWIN),
    "swin classifier": ("SwinForImageClassification", {**SWIN, "num_labels": 3}),
    "beit": ("BeitModel", {**BEIT, "use_mean_pooling": False}),
    "beit positions": ("BeitModel", {**SMALL, "use_absolute_position_embeddings": True, "use_mean_pooling": False}),
}


SLOW = ("msn", "mae decoder", "swin classifier", "beit positions")  # the same rules as others of the table


@pytest.fixture(autouse=True)
def narrow_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(swin.SIZES, "swin_tiny", swin.Size(16, (2, 2, 2, 2), (1, 2, 4, 8)))


def built(kind: str, config: dict[str, Any]) -> Any:
    """A model with every parameter away from its initial value."""
    family = re.split("Model|For", kind)[0]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**config)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def saved(model: Any, folder: Path, **options: Any) -> str:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    model.save_pretrained(folder, **options)
    return str(folder)


def pictures(loaded: LoadedBackbone) -> Tensor:
    """Photos, as evaluations prepare them."""
    source = open_source("builtin:photos", channels=loaded.channels)
    transform = eval_transform(*loaded.preparation)
    return torch.stack([transform(source.read(index)) for index in (0, 700)])


@torch.no_grad()
def tokens_of(model: Any, images: Tensor) -> Tensor:
    """The library's class token, or the mean that stands for it, and patches."""
    config, given = model.config, {}
    if config.model_type == "vit_mae":
        given["noise"] = torch.arange((config.image_size // config.patch_size) ** 2.0).expand(len(images), -1)
    tokens: Tensor = model.base_model(images, **given).last_hidden_state
    if config.model_type == "swin":
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
    return torch.cat([tokens[:, :1], tokens[:, 1 + getattr(config, "num_register_tokens", 0) :]], dim=1)


def difference(model: Any, loaded: LoadedBackbone) -> float:
    images = pictures(loaded)
    with torch.no_grad():
        expected, found = tokens_of(model, images), loaded.backbone(images)
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MODELS]
)
def test_tokens_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    """With the names that it writes and that the hub's files have, and with those of its memory since version 5."""
    model = built(*MODELS[name])
    for original in (True, False):
        folder = saved(model, tmp_path / str(original), save_original_format=original)
        loaded = load_weights(folder)
        assert difference(model, loaded) <= TOLERANCE
        assert loaded.origin.layout == f"Hugging Face folder ({MODELS[name][0]})"
        held = load_file(tmp_path / str(original) / "model.safetensors")
        assert set(loaded.unused) == {key for key in held if re.search(r"pooler\.dense|classifier|decoder", key)}
        assert (loaded.shape is None) == (name in ("gated", "beit"))


def test_what_beit_pools_is_token_0(tmp_path: Path) -> None:
    model = built("BeitForImageClassification", {**BEIT, "num_labels": 3})
    loaded = load_weights(saved(model, tmp_path))
    images = pictures(loaded)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images)[:, 0], model.base_model(images).pooler_output)
        torch.testing.assert_close(model.classifier(loaded.backbone(images)[:, 0]), model(images).logits)
    assert loaded.origin.method == "BEiT" and not any("class token" in note for note in loaded.notes)


def test_a_masked_token_is_kept_beside_the_network(tmp_path: Path) -> None:
    model = built("SwinForMaskedImageModeling", SWIN)
    loaded = load_weights(saved(model, tmp_path))
    masked = model.base_model.embeddings.mask_token.detach().reshape(1, -1)
    assert loaded.mask_token is not None
    ratio = loaded.mask_token / masked
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.1**0.5))  # as the rest of the stream, see norm_epsilon
    model = built("ViTForMaskedImageModeling", {**SMALL, "encoder_stride": 8})
    loaded = load_weights(saved(model, tmp_path / "vit"))
    assert loaded.mask_token is not None
    assert torch.equal(loaded.mask_token[0], model.base_model.embeddings.mask_token.detach().flatten())


def test_another_epsilon_is_measured(tmp_path: Path) -> None:
    model = built("ViTModel", {**SMALL, "layer_norm_eps": 1e-3})
    loaded = load_weights(saved(model, tmp_path))
    told = next(note for note in loaded.notes if "epsilon 0.001" in note)
    stated = float(re.search(r"by ([\d.e-]+) of", told)[1])  # type: ignore[index]
    found = difference(model, loaded)
    assert found > 1e-4 and 0.2 * found < stated < 5 * found
    assert not any("epsilon" in note for note in load_weights(saved(built("ViTModel", SMALL), tmp_path / "same")).notes)


def test_shards_pickles_and_a_file_named_itself(tmp_path: Path) -> None:
    model = built("ViTModel", SMALL)
    whole = load_weights(saved(model, tmp_path / "whole"))
    shards = saved(model, tmp_path / "shards", max_shard_size="20KB")
    names = sorted(path.name for path in Path(shards).glob("model-*.safetensors"))
    assert len(names) > 2 and load_weights(shards).weights_hash == whole.weights_hash
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    torch.save(load_file(tmp_path / "whole" / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    assert load_weights(str(pickled)).weights_hash == whole.weights_hash
    assert load_weights(str(pickled / "pytorch_model.bin")).weights_hash == whole.weights_hash
    (tmp_path / "shards" / names[1]).unlink()
    with pytest.raises(WeightsError, match=rf"lacks 1 of its {len(names)} files of weights: {names[1]}"):
        load_weights(shards)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "convnextv2", "architectures": ["ConvNextV2Model"]}, r"a ConvNextV2Model \(model_type convne"),
        ({"hidden_act": "gelu_new"}, "hidden_act is gelu_new"),
        ({"intermediate_size": 96}, "intermediate_size is 96, not 4 times hidden_size 32"),
        ({"head_dim": 8}, "head_dim is 8, not 32 / 2"),
        ({"image_size": 36}, "image_size 36 is no multiple of patch_size 8"),
        ({"image_size": [32, 64]}, r"\[32, 64\] is no square"),
        ({"model_type": None}, "names no model: neither model_type"),
    ],
)
def test_what_our_networks_cannot_be_is_refused(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    saved(built("ViTModel", SMALL), tmp_path)
    change_config(tmp_path, changes)
    with pytest.raises(WeightsError, match=match):
        load_weights(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"patch_size": 2}, "patch_size is 2, a Swin here has 4"),
        ({"use_absolute_embeddings": True}, "absolute positions"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps is 1e-06 in the blocks and 1e-5 between"),
        ({"num_heads": [1, 2, 4, 4]}, "num_heads is"),
        ({"mlp_ratio": 2.0}, "mlp_ratio is 2.0"),
    ],
)
def test_what_our_swin_cannot_be_is_refused(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    saved(built("SwinModel", SWIN), tmp_path)
    change_config(tmp_path, changes)
    with pytest.raises(WeightsError, match=match):
        load_weights(str(tmp_path))


def change_config(folder: Path, changes: dict[str, Any]) -> None:
    """None takes an entry out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def test_incomplete_folders(tmp_path: Path) -> None:
    saved(built("ViTModel", SMALL), tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)

    def refused(match: str) -> None:
        with pytest.raises(WeightsError, match=match):
            load_weights(str(tmp_path))

    lost = {name: value for name, value in tensors.items() if "layer.1.attention.attention.key" not in name}
    save_file(lost, weights)
    refused(r"blocks\.1\.attn\.k\.weight is missing beside")
    save_file({name: value for name, value in tensors.items() if "layer.1.layernorm" not in name}, weights)
    refused(r"missing: backbone\.blocks\.1\.norm1")
    save_file(tensors | {"encoder.layer.0.gate": torch.zeros(1)}, weights)
    refused(r"unexpected: backbone\.blocks\.0\.gate")
    save_file(tensors, weights)
    weights.write_bytes(weights.read_bytes()[:-100])
    refused("model.safetensors cannot be read: it is truncated")
    save_file(tensors, weights)
    (tmp_path / "config.json").rename(tmp_path / "other.json")
    refused("no config.json")
    weights.unlink()
    (tmp_path / "other.json").rename(tmp_path / "config.json")
    refused(r"has a config\.json but no weights")
    (tmp_path / "config.json").write_text("{")
    refused(r"config\.json cannot be read")


def test_a_lone_file_needs_its_configuration(tmp_path: Path) -> None:
    saved(built("ViTModel", SMALL), tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"no config\.json beside it says which network it is"):
        load_weights(str(tmp_path / "model.safetensors"))


def test_networks_that_only_timm_has_are_named_as_such(tmp_path: Path) -> None:
    found = find_weights(Path(saved(built("Dinov2Model", {**DINO, "use_swiglu_ffn": True}), tmp_path)))
    assert isinstance(found.network, TimmNetwork) and found.origin.method == "DINOv2"
