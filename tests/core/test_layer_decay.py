"""Layer-wise learning rates, parameter by parameter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.classifier import Classifier, kept_projection
from ibot_cli.core.objective import Network
from ibot_cli.core.optim import apply_schedule, build_optimizer, layer_groups, layer_numbers, parameter_groups
from tests.core import tiny

BLOCK = {
    "norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias",
    "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
}  # fmt: skip


def groups_by_name(network: nn.Module, decay: float, *, decay_tokens: bool = False) -> dict[str, dict[str, object]]:
    names = {id(value): name for name, value in network.named_parameters()}
    groups = layer_groups(network, decay, decay_tokens=decay_tokens)
    found = {names[id(p)]: group for group in groups for p in group["params"]}
    assert found.keys() == set(names.values())
    return found


def test_every_parameter_of_a_vit_by_name() -> None:
    expected = {
        "backbone.cls_token": (0, False), "backbone.pos_embed": (0, False),
        "backbone.patch_embed.proj.weight": (0, True), "backbone.patch_embed.proj.bias": (0, False),
        "fc_norm.weight": (3, False), "fc_norm.bias": (3, False), "head.weight": (3, True), "head.bias": (3, False),
    }  # fmt: skip
    for block in range(2):
        for name in BLOCK:
            matrix = name.endswith("weight") and "norm" not in name
            expected[f"backbone.blocks.{block}.{name}"] = (block + 1, matrix)
    found = groups_by_name(Classifier(tiny.vit(mask_token=False), 5), 0.65)
    assert found.keys() == expected.keys()
    for name, (layer, decayed) in expected.items():
        assert found[name]["name"] == f"layer {layer} {'decayed' if decayed else 'plain'}", name
        assert found[name]["lr_scale"] == pytest.approx(0.65 ** (3 - layer)), name


def test_class_token_pooling_with_a_projection_and_a_mask_token() -> None:
    model = Classifier(tiny.vit(), 5, pooling="cls", projection=kept_projection(tiny.head()))
    numbers = layer_numbers([name for name, _ in model.named_parameters()])
    last = {"backbone.norm.weight", "backbone.norm.bias", "projection.0.weight", "projection.0.bias", "head.weight"}
    assert {numbers[name] for name in last} == {3}
    assert numbers["backbone.masked_embed"] == 0


def test_registers_are_treated_as_the_class_token() -> None:
    group = groups_by_name(Classifier(tiny.vit(mask_token=False, registers=2), 5), 0.65)["backbone.register_tokens"]
    assert group["name"] == "layer 0 plain"


def test_a_swin_is_counted_through_its_stages() -> None:
    with torch.device("meta"):
        model = Classifier(build_backbone(arch="swin_tiny", image_size=64, window_size=2), 5)
    found = groups_by_name(model, 0.9)
    layers = {
        "backbone.patch_embed.proj.weight": 0, "backbone.patch_embed.norm.weight": 0,
        "backbone.layers.0.blocks.0.norm1.weight": 1, "backbone.layers.0.blocks.1.mlp.fc2.bias": 2,
        "backbone.layers.1.downsample.reduction.weight": 2, "backbone.layers.1.downsample.norm.bias": 2,
        "backbone.layers.1.blocks.0.attn.qkv.weight": 3, "backbone.layers.2.downsample.reduction.weight": 4,
        "backbone.layers.2.blocks.0.attn.relative_position_bias_table": 5, "backbone.layers.2.blocks.5.norm2.bias": 10,
        "backbone.layers.3.downsample.norm.weight": 10, "backbone.layers.3.blocks.1.attn.proj.weight": 12,
        "backbone.norm.weight": 13, "head.weight": 13, "head.bias": 13,
    }  # fmt: skip
    for name, layer in layers.items():
        assert str(found[name]["name"]).startswith(f"layer {layer} "), name
        assert found[name]["lr_scale"] == pytest.approx(0.9 ** (13 - layer)), name


def test_published_base_model_has_13_layers_above_the_embedding() -> None:
    with torch.device("meta"):
        groups = layer_groups(Classifier(build_backbone(arch="vit_base", image_size=224), 1000), 0.65)
    scales = sorted({float(group["lr_scale"]) for group in groups})
    assert len(scales) == 14
    assert scales[0] == pytest.approx(0.65**13) and scales[-1] == 1.0


def test_the_schedule_scales_the_rate_and_decays_matrices_only() -> None:
    model = Classifier(tiny.vit(mask_token=False), 5)
    optimizer = build_optimizer(model, betas=(0.9, 0.999), eps=1e-8, layer_decay=0.5)
    apply_schedule(optimizer, 0.8, 0.05)
    for group in optimizer.param_groups:
        layer = int(group["name"].split()[1])
        assert group["lr"] == pytest.approx(0.8 * 0.5 ** (3 - layer))
        assert group["weight_decay"] == (0.05 if "decayed" in group["name"] else 0.0)


def test_no_decay_of_the_rate() -> None:
    assert {group["lr_scale"] for group in layer_groups(Classifier(tiny.vit(), 3), 1.0)} == {1.0}


def test_pre_training_decays_what_it_always_decayed_at_other_rates() -> None:
    student = Network(tiny.vit(registers=2), tiny.head(5, norm="batch"))
    found = groups_by_name(student, 0.5, decay_tokens=True)
    names = {id(value): name for name, value in student.named_parameters()}
    for group in parameter_groups(student):
        for value in group["params"]:  # type: ignore[attr-defined]
            assert str(found[names[id(value)]]["name"]).endswith(str(group["name"])), names[id(value)]
    scales = {name: group["lr_scale"] for name, group in found.items()}
    assert {scales[name] for name in scales if name.startswith("head.")} == {1.0}
    assert scales["backbone.norm.weight"] == 1.0 and scales["backbone.blocks.1.mlp.fc1.weight"] == 0.5
    tokens = ("cls_token", "register_tokens", "pos_embed", "masked_embed", "patch_embed.proj.weight")
    assert {scales[f"backbone.{name}"] for name in tokens} == {0.125}
