"""Layer scale folded into the layers before it, against timm's own layers."""

from __future__ import annotations

import timm
import torch

from ibot_cli.weights.layer_scale import without_layer_scale

SHAPE = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 16, "num_classes": 0}


def test_the_network_without_it_computes_the_same() -> None:
    torch.manual_seed(0)
    scaled = timm.create_model("vit_small_patch16_224", init_values=1.0, **SHAPE).eval()
    plain = timm.create_model("vit_small_patch16_224", **SHAPE).eval()
    with torch.no_grad():
        for value in scaled.parameters():
            value.normal_(std=0.5)
    state = scaled.state_dict()
    folded = without_layer_scale(state)
    assert set(state) - set(folded) == {f"blocks.{n}.ls{k}.gamma" for n in (0, 1) for k in (1, 2)}
    plain.load_state_dict(folded)
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        expected, found = scaled.forward_features(images), plain.forward_features(images)
    assert (expected - found).abs().max() / expected.abs().max() < 1e-5


def test_prefixes_half_precision_and_layers_without_bias() -> None:
    state = {
        "backbone.blocks.0.ls2.gamma": torch.tensor([2.0, -1.0]).half(),
        "backbone.blocks.0.mlp.fc2.weight": torch.tensor([[1.0, 3.0, 0.1], [5.0, 7.0, 9.0]]).half(),
        "backbone.blocks.0.mlp.fc1.bias": torch.ones(3).half(),
    }
    folded = without_layer_scale(state)
    weight = folded.pop("backbone.blocks.0.mlp.fc2.weight")
    expected = torch.tensor([[2.0, 6.0, 2 * state["backbone.blocks.0.mlp.fc2.weight"][0, 2].item()], [-5, -7, -9]])
    assert torch.equal(weight, expected)
    assert list(folded) == ["backbone.blocks.0.mlp.fc1.bias"] and folded.popitem()[1].dtype == torch.float16


def test_networks_without_it_are_left_alone() -> None:
    state = {"blocks.0.attn.proj.weight": torch.ones(2, 2)}
    assert without_layer_scale(state) == state
