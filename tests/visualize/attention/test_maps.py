"""Attention maps and patch features of images."""

from __future__ import annotations

import pytest
import timm
import torch

from ibot_cli.core import swin
from ibot_cli.core.classifier import Classifier
from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.visualize.attention.maps import CLS, attention_maps, attention_notes, check_attention, patch_features
from ibot_cli.visualize.whole_image import whole_image
from ibot_cli.weights.load import LoadedBackbone
from ibot_cli.weights.timm_models import TimmBackbone
from tests.visualize.attention.known import looking_at, spotted
from tests.visualize.networks import loaded_network


def small_swin() -> LoadedBackbone:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(swin.SIZES, "swin_miniature", swin.Size(8, (2, 2, 2, 2), (1, 2, 2, 2)))
        return loaded_network(arch="swin_miniature", image_size=128, window_size=2)


def of_timm(name: str, **options: object) -> LoadedBackbone:
    model = timm.create_model(name, img_size=32, embed_dim=24, depth=2, num_heads=2, num_classes=0, **options)
    loaded = loaded_network(channels=3)
    return LoadedBackbone(**{**vars(loaded), "backbone": TimmBackbone(model).eval(), "image_size": 32})


@pytest.mark.parametrize(("rows", "columns", "spot"), [(4, 4, (1, 2)), (4, 7, (3, 5)), (9, 4, (6, 0))])
def test_the_bright_patch_is_found_whatever_the_shape(rows: int, columns: int, spot: tuple[int, int]) -> None:
    loaded = looking_at(["bright", "dark"])
    whole = whole_image(spotted([spot], rows=rows, columns=columns), loaded)
    maps = attention_maps(loaded, whole, [CLS, (0, 1)])
    assert maps.shape == (2, 2, rows, columns) and maps.dtype == torch.float32
    expected = torch.zeros(rows, columns)
    expected[spot] = 1
    dark = (1 - expected) / (rows * columns - 1)
    for bright_head, dark_head in maps:
        torch.testing.assert_close(bright_head, expected, atol=1e-3, rtol=0)
        torch.testing.assert_close(dark_head, dark, atol=1e-3, rtol=0)


def test_what_falls_on_the_class_token_is_missing() -> None:
    loaded = looking_at(["nothing"])
    maps = attention_maps(loaded, whole_image(spotted([]), loaded), [CLS])
    torch.testing.assert_close(maps, torch.full((1, 1, 4, 4), 1 / 17))


def test_patches_of_a_vision_transformer_are_counted_in_rows() -> None:
    loaded = loaded_network()
    whole = whole_image(spotted([(0, 0), (2, 3)], columns=6), loaded)
    everything = loaded.backbone.attention(whole.pixels[None], torch.arange(25)).detach()
    maps = attention_maps(loaded, whole, [(2, 3), CLS, (3, 5)])
    torch.testing.assert_close(maps.flatten(2), everything[0, :, [1 + 15, 0, 1 + 23], 1:].transpose(0, 1))


def test_swin_shows_patches_in_their_windows() -> None:
    loaded = small_swin()
    whole = whole_image(spotted([(3, 3)], rows=32, columns=48), loaded)
    assert whole.grid == (4, 6)
    maps = attention_maps(loaded, whole, [(1, 2)])
    assert maps.shape == (1, 2, 4, 6)
    # windows of 2 x 2, shifted by one: rows 1 and 2, columns 1 and 2
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[1:3, 1:3] = True
    assert (maps[0][:, inside] > 1e-3).all() and (maps[0][:, ~inside] == 0).all()
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(1, 2))
    assert patch_features(loaded, whole).shape == (24, 64)


def test_swin_has_no_attention_of_a_class_token() -> None:
    with pytest.raises(UsageError, match=r"no class token, so there is no attention of it: tiny\.") as caught:
        check_attention(small_swin(), [CLS])
    assert caught.value.hint is not None and "--at X,Y" in caught.value.hint


def test_plain_models_of_timm() -> None:
    loaded = of_timm("vit_tiny_patch16_224")
    whole = whole_image(spotted([(0, 0)], rows=8, columns=8, mode="RGB"), loaded)
    maps = attention_maps(loaded, whole, [CLS, (1, 0)])
    expected = loaded.backbone.attention(whole.pixels[None], torch.tensor([0, 3])).detach()
    torch.testing.assert_close(maps.flatten(2), expected[0, :, :, 1:].transpose(0, 1))
    assert patch_features(loaded, whole).shape == (4, 24)
    pooled = of_timm("vit_tiny_patch16_224", global_pool="avg", class_token=False)
    with pytest.raises(UsageError, match="has no class token"):
        check_attention(pooled, [CLS])
    check_attention(pooled, [(0, 0)])


def test_models_of_timm_with_other_attention() -> None:
    with pytest.raises(WeightsError, match="The attention of tiny is of a kind that cannot be read") as caught:
        check_attention(of_timm("eva02_tiny_patch14_224", patch_size=16), [(0, 0)])
    assert caught.value.hint is not None and "--pca" in caught.value.hint


def test_patch_features_are_the_normed_tokens_of_the_last_block() -> None:
    loaded = loaded_network()
    whole = whole_image(spotted([(1, 1)], rows=5), loaded)
    with torch.no_grad():
        torch.testing.assert_close(patch_features(loaded, whole), loaded.backbone(whole.pixels[None])[0, 1:])


def test_a_class_token_that_was_not_fine_tuned_is_told_of() -> None:
    loaded = loaded_network()
    assert attention_notes(loaded) == []
    with torch.random.fork_rng(devices=[]):
        twin = Classifier(loaded.backbone, 3, pooling="mean").token_backbone()
    (note,) = attention_notes(LoadedBackbone(**{**vars(loaded), "backbone": twin}))
    assert "its class token was not trained" in note
