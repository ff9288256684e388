"""Pooling, the head's start, drop path and the kept projection layer, against explicit computations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ibot_cli.core.backbone import Backbone, build_backbone, drop_path_factors
from ibot_cli.core.classifier import Classifier, kept_projection
from ibot_cli.core.vit import ViT
from tests.core import tiny

IMAGES = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def vit() -> ViT:
    torch.manual_seed(0)
    backbone = tiny.vit(mask_token=False)
    tiny.scatter(backbone, 1)
    return backbone


def swin() -> Backbone:
    torch.manual_seed(0)
    return build_backbone(arch="swin_tiny", image_size=32, channels=1, window_size=2)


def raw_tokens(backbone: ViT, images: Tensor) -> Tensor:
    """Tokens before the final norm."""
    seen: list[Tensor] = []
    hook = backbone.norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    backbone(images)
    hook.remove()
    return seen[0]


def test_mean_pooling_is_a_new_norm_of_the_mean_of_raw_patches() -> None:
    backbone = vit()
    patches = raw_tokens(backbone, IMAGES)[:, 1:]
    model = Classifier(backbone, 5, pooling="mean")
    tiny.scatter(model.fc_norm, 2)
    expected = nn.functional.layer_norm(patches.mean(1), (16,), model.fc_norm.weight, model.fc_norm.bias, 1e-6)
    torch.testing.assert_close(model.features(IMAGES), expected)
    torch.testing.assert_close(model(IMAGES), model.head(expected))
    assert not any(name.startswith("backbone.norm.") for name in model.state_dict())


def test_cls_pooling_is_the_class_token_after_the_final_norm() -> None:
    backbone = vit()
    model = Classifier(backbone, 5, pooling="cls")
    torch.testing.assert_close(model.features(IMAGES), backbone(IMAGES)[:, 0])
    assert model.fc_norm is None


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_swin_uses_its_pooled_token(pooling: str) -> None:
    backbone, images = swin(), torch.randn(2, 1, 32, 32)
    model = Classifier(backbone, 4, pooling=pooling)
    torch.testing.assert_close(model.features(images), backbone(images)[:, 0])
    factors = drop_path_factors(0.5, backbone.num_blocks, 1, 2, torch.Generator().manual_seed(0))
    assert not torch.allclose(model(images, factors[:, :, 0]), model(images))


def test_the_head_starts_small_and_only_the_head_is_scaled() -> None:
    torch.manual_seed(0)
    small = Classifier(vit(), 200, head_init_scale=0.001)
    torch.manual_seed(0)
    large = Classifier(vit(), 200, head_init_scale=1.0)
    torch.testing.assert_close(small.head.weight * 1000, large.head.weight)
    assert large.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert small.head.bias.abs().sum() == 0
    torch.testing.assert_close(small.backbone.pos_embed, large.backbone.pos_embed)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_drop_path_of_one_image_leaves_the_others_alone(pooling: str) -> None:
    model = Classifier(vit(), 5, pooling=pooling, head_init_scale=1.0)
    factors = torch.ones(2, 2, 3)
    factors[1, :, 0] = 0
    changed, whole = model(IMAGES, factors), model(IMAGES)
    torch.testing.assert_close(changed[1:], whole[1:])
    assert not torch.allclose(changed[0], whole[0])


def test_all_branches_dropped_leaves_the_embedding() -> None:
    model = Classifier(vit(), 5, pooling="mean")
    embedded = model.backbone._embed(IMAGES, None)[:, 1:].mean(1)
    torch.testing.assert_close(model.features(IMAGES, torch.zeros(2, 2, 3)), model.fc_norm(embedded))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_token_zero_for_evaluations_is_the_feature(pooling: str) -> None:
    model = Classifier(vit(), 5, pooling=pooling).eval()
    backbone = model.token_backbone()
    assert isinstance(backbone, ViT)
    with torch.no_grad():
        tokens = backbone(IMAGES)
        torch.testing.assert_close(tokens[:, 0], model.features(IMAGES))
        assert tokens.shape == (3, 17, 16)
        torch.testing.assert_close(backbone.intermediate(IMAGES, 2)[-1], tokens)
    assert next(backbone.parameters()) is next(model.parameters())


def test_kept_projection_is_the_first_layer_with_its_activation() -> None:
    head = tiny.head()
    kept, features = kept_projection(head), torch.randn(4, 16)
    torch.testing.assert_close(kept(features), head.mlp[1](head.mlp[0](features)))
    assert kept[0].weight is not head.mlp[0].weight
    model = Classifier(vit(), 5, pooling="cls", projection=kept, head_init_scale=1.0)
    assert model.head.in_features == 24
    torch.testing.assert_close(model(IMAGES), model.head(kept(model.features(IMAGES))))


def test_a_batch_norm_is_folded_into_the_kept_layer() -> None:
    head = tiny.head(norm="batch", activation="relu").eval()
    norm = head.mlp[1]
    with torch.no_grad():
        for value in (norm.weight, norm.running_var):
            value.uniform_(0.5, 2.0)
        norm.bias.normal_()
        norm.running_mean.normal_()
    kept, features = kept_projection(head), torch.randn(4, 16)
    torch.testing.assert_close(kept(features), head.mlp[2](norm(head.mlp[0](features))))
    assert isinstance(kept[1], nn.ReLU)


def test_what_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match="a single layer"):
        kept_projection(tiny.head(num_layers=1))
    with pytest.raises(ValueError, match="for class tokens"):
        Classifier(vit(), 5, pooling="mean", projection=kept_projection(tiny.head()))
