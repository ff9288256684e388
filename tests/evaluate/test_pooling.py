from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from ibot_cli.core import swin
from ibot_cli.core.backbone import Backbone, build_backbone
from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.evaluate.pooling import compute_parts, parse_pooling, parts_of
from ibot_cli.weights.timm_models import TimmBackbone
from tests.core import explicit, tiny
from tests.evaluate.images import MeanColour

SMALL = {"embed_dim": 24, "depth": 3, "num_heads": 2, "img_size": 32, "num_classes": 0}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("cls", "cls@1"),
        ("cls4", "cls@4 cls@3 cls@2 cls@1"),
        ("cls+mean", "cls@1 mean@1"),
        ("cls2 + rawmean", "cls@2 cls@1 rawmean@1"),
        ("mean12", " ".join(f"mean@{block}" for block in range(12, 0, -1))),
    ],
)
def test_parts_oldest_block_first(text: str, parts: str) -> None:
    assert parse_pooling(text).parts == tuple(parts.split())
    assert parse_pooling(text).text == text


@pytest.mark.parametrize("text", ["", "cls0", "cls-1", "CLS", "max", "cls+", "4", "cls1000", "cls 4", "mean@1"])
def test_what_is_no_pooling_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a pooling") as caught:
        parse_pooling(text)
    assert caught.value.hint == "Examples: cls, cls4 (the last four blocks), cls+mean, rawmean."


def test_a_part_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="The pooling 'cls4\\+cls' takes the same feature twice"):
        parse_pooling("cls4+cls")


def test_parts_of_several_poolings_once_each() -> None:
    assert parts_of(("mean", "cls+mean", "cls3"), tiny.vit(depth=3)) == ["cls@3", "cls@2", "cls@1", "mean@1"]


def everything(depth: int) -> list[str]:
    return [f"{kind}@{block}" for kind in ("cls", "mean", "rawmean") for block in range(depth, 0, -1)]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)


def test_vit_against_a_forward_pass_written_out() -> None:
    backbone = tiny.vit(depth=3)
    tiny.scatter(backbone, 0)
    images = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    outputs, _ = explicit.vit(explicit.double(backbone), images, patch=4, heads=2)
    with torch.no_grad():
        parts = compute_parts(backbone, images, everything(3))
    for block in (1, 2, 3):
        tokens = outputs[-block]
        close(parts[f"cls@{block}"], tokens[:, 0])
        close(parts[f"mean@{block}"], tokens[:, 1:].mean(dim=1))


def test_raw_patches_become_the_normed_ones() -> None:
    backbone = tiny.vit(depth=2)
    tiny.scatter(backbone, 0)
    images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for block, normed in zip(backbone.last_blocks(images, 2), backbone.intermediate(images, 2), strict=True):
            torch.testing.assert_close(backbone.norm(block.raw), normed[:, 1:])
            parts = compute_parts(backbone, images, ["rawmean@2", "rawmean@1"])
        torch.testing.assert_close(parts["rawmean@1"], block.raw.mean(dim=1))
        assert not torch.allclose(parts["rawmean@1"], parts["rawmean@2"])


def test_swin_pools_its_tokens_and_norms_the_last_stage_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(swin.SIZES, "swin_miniature", swin.Size(8, (1, 1, 2, 2), (1, 2, 2, 2)))
    backbone = build_backbone(arch="swin_miniature", image_size=64, channels=1)
    tiny.scatter(backbone, 0)
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        parts = compute_parts(backbone, images, everything(4))
        expected = backbone.intermediate(images, 4)
    for block in (1, 2, 3, 4):
        torch.testing.assert_close(parts[f"cls@{block}"], expected[-block][:, 0])
        torch.testing.assert_close(parts[f"cls@{block}"], parts[f"mean@{block}"])
        unchanged = torch.allclose(parts[f"rawmean@{block}"], parts[f"mean@{block}"])
        assert unchanged == (block > 2)  # two blocks in the last stage


@pytest.mark.parametrize(
    ("arch", "pooling", "dim"),
    [
        ("swin_tiny", "cls4", 2304),
        ("vit_small", "cls4", 1536),
        ("vit_base", "cls+mean", 1536),
        ("vit_base", "cls", 768),
    ],
)
def test_published_dimensions(arch: str, pooling: str, dim: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(arch=arch, image_size=224)
        parts = compute_parts(backbone, torch.empty(1, 3, 224, 224), parts_of([pooling], backbone))
    assert sum(value.shape[1] for value in parts.values()) == dim


def same_class_token(backbone: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        alone = compute_parts(backbone, images, ["cls@1"])["cls@1"]
        assert torch.equal(compute_parts(backbone, images, ["cls@2", "cls@1", "mean@1"])["cls@1"], alone)


@pytest.mark.parametrize("arch", ["vit", "swin"])
def test_the_class_token_is_the_same_to_the_bit_whatever_else_is_asked(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(swin.SIZES, "swin_miniature", swin.Size(8, (1, 1, 2, 2), (1, 2, 2, 2)))
    backbone: Backbone = (
        tiny.vit(depth=3) if arch == "vit" else build_backbone(arch="swin_miniature", image_size=64, channels=1)
    )
    same_class_token(backbone, torch.randn(5, 1, backbone.image_size, backbone.image_size))


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 3}])
def test_timm_blocks_are_those_of_timm(options: dict[str, int]) -> None:
    model = timm.create_model("vit_tiny_patch16_224", **SMALL, **options).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        parts = compute_parts(TimmBackbone(model), images, everything(2))
        normed = model.get_intermediate_layers(images, n=2, return_prefix_tokens=True, norm=True)
        raw = model.get_intermediate_layers(images, n=2, norm=False)
    for block in (1, 2):
        patches, prefix = normed[-block]
        torch.testing.assert_close(parts[f"cls@{block}"], prefix[:, 0])
        torch.testing.assert_close(parts[f"mean@{block}"], patches.mean(dim=1))
        torch.testing.assert_close(parts[f"rawmean@{block}"], raw[-block].mean(dim=1))
    same_class_token(TimmBackbone(model), images)


@pytest.mark.parametrize(
    ("name", "options"),
    [("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False}), ("vit_relpos_small_patch16_224", {})],
)
def test_timm_without_class_token_averages_earlier_blocks(name: str, options: dict[str, Any]) -> None:
    model = timm.create_model(name, **SMALL, **options).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        parts = compute_parts(TimmBackbone(model), images, everything(2))
        torch.testing.assert_close(parts["cls@1"], model(images))
    torch.testing.assert_close(parts["cls@2"], parts["mean@2"])
    same_class_token(TimmBackbone(model), images)


@pytest.mark.parametrize("backbone", [MeanColour(), TimmBackbone(timm.create_model("resnet18", num_classes=0))])
def test_networks_without_blocks_name_the_pooling_that_works(backbone: nn.Module) -> None:
    assert parts_of(["cls"], backbone) == ["cls@1"]
    for text in ("cls4", "cls+mean", "rawmean"):
        with pytest.raises(
            WeightsError, match="needs the blocks of the network, and this one gives a single"
        ) as caught:
            parts_of(["cls", text], backbone)
        assert f"The pooling {text} " in caught.value.message
        assert caught.value.hint == "The pooling that works is cls."


def test_too_many_blocks() -> None:
    with pytest.raises(WeightsError, match="The pooling cls4 needs 4 blocks, and the network has 2") as caught:
        parts_of(["cls", "cls4"], tiny.vit(depth=2))
    assert caught.value.hint == "With up to 2 blocks cls, mean and rawmean work, for example cls2."


def test_a_single_feature_serves_every_pooling() -> None:
    backbone = MeanColour()
    backbone.single_feature = True
    assert parts_of(["cls4+mean", "rawmean"], backbone) == ["cls@1"]
