from pathlib import Path

import pytest
import timm
import torch

from ibot_cli.errors import WeightsError
from ibot_cli.weights.load import load_weights
from ibot_cli.weights.timm_models import TimmBackbone

TINY = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 32, "num_classes": 0}


def tiny(**options: object) -> torch.nn.Module:
    return timm.create_model("vit_tiny_patch16_224", **TINY, **options).eval()


def test_pretrained_weights_from_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny()
    torch.save(source.state_dict(), tmp_path / "tiny.pth")
    overlay = {"file": str(tmp_path / "tiny.pth"), "input_size": (3, 32, 32), "mean": (0.5, 0.5, 0.5), "crop_pct": 0.9}
    create = timm.create_model

    def local(name: str, *, pretrained: bool, num_classes: int) -> torch.nn.Module:
        assert (name, num_classes) == ("vit_tiny_patch16_224", 0)
        return create(name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **TINY)

    monkeypatch.setattr(timm, "create_model", local)
    loaded = load_weights("timm:vit_tiny_patch16_224")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), source.forward_features(images))
    assert (loaded.image_size, loaded.mean, loaded.crop_ratio) == (32, (0.5, 0.5, 0.5), 0.9)
    assert loaded.rebuild().state_dict().keys() == loaded.backbone.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("vit_small_patch16_224.dino", "DINO"),
        ("vit_small_patch14_reg4_dinov2.lvd142m", "DINOv2"),
        ("vit_base_patch16_224.mae", "MAE"),
        ("beitv2_base_patch16_224.in1k_ft_in1k", "BEiT v2"),
        ("beit_base_patch16_224.in22k_ft_in22k", "BEiT"),
        ("vit_tiny_patch16_224.augreg_in21k", "supervised"),
        ("vit_small_patch16_dinov3.lvd1689m", None),
        ("vit_huge_patch14_gap_224.in1k_ijepa", None),
    ],
)
def test_the_name_tells_the_method(monkeypatch: pytest.MonkeyPatch, name: str, method: str | None) -> None:
    assert name in timm.list_pretrained()
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: create("vit_tiny_patch16_224", **TINY))
    assert load_weights(f"timm:{name}").origin.method == method


@pytest.mark.parametrize("options", [{"reg_tokens": 3}, {"global_pool": "avg", "class_token": False}])
def test_class_token_comes_first_or_the_pooled_feature(options: dict[str, object]) -> None:
    model = tiny(**options)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        tokens = TimmBackbone(model)(images)
        torch.testing.assert_close(tokens[:, 0], model(images))
    assert tokens.shape == ((2, 5, 24) if "reg_tokens" in options else (2, 1, 24))


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 3}, {"qk_norm": True}])
def test_attention_is_that_of_the_last_layer(options: dict[str, object]) -> None:
    """What falls on registers is counted with the class token."""
    model = tiny(**options)
    layer = model.blocks[-1].attn
    layer.fused_attn = False
    seen: list[torch.Tensor] = []
    images = torch.rand(2, 3, 32, 32)
    with layer.attn_drop.register_forward_hook(lambda _, given, out: seen.append(out)), torch.no_grad():
        model(images)
    with torch.no_grad():
        rows = TimmBackbone(model).attention(images, torch.tensor([0, 3]))
    first = 4 if "reg_tokens" in options else 1
    expected = seen[0][:, :, [0, first + 2]]
    torch.testing.assert_close(rows[..., 1:], expected[..., first:])
    torch.testing.assert_close(rows[..., 0], expected[..., :first].sum(-1))
    assert TimmBackbone(model).stride == 16


def test_attention_that_cannot_be_read() -> None:
    other = timm.create_model("eva02_tiny_patch14_224", patch_size=16, **TINY)
    assert TimmBackbone(other).stride == 16
    with pytest.raises(WeightsError, match="The attention of Eva is of a kind that cannot be read") as caught:
        TimmBackbone(other).attention(torch.rand(1, 3, 32, 32), torch.tensor([0]))
    assert caught.value.hint == "Plain vision transformers of timm and its BEiT can be shown."
    pooled = TimmBackbone(tiny(global_pool="avg", class_token=False))
    with pytest.raises(ValueError, match="VisionTransformer has no class token"):
        pooled.attention(torch.rand(1, 3, 32, 32), torch.tensor([0]))
    assert pooled.attention(torch.rand(1, 3, 32, 32), torch.tensor([1])).shape == (1, 2, 1, 5)
