"""Strict and partial filling: every tensor is loaded, named, or an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.heads import Head
from ibot_cli.errors import WeightsError
from ibot_cli.weights.assembly import assemble
from ibot_cli.weights.finetuned import ClassifierShape
from ibot_cli.weights.layouts.found import Found, Preparation, TimmNetwork
from ibot_cli.weights.load import load_weights
from ibot_cli.weights.origin import Origin
from ibot_cli.weights.shapes import BackboneShape

SHAPE = BackboneShape(arch="vit_tiny", image_size=16, channels=1, patch_size=8, width=16, depth=2, heads=2)
TENSORS = 4 + 2 * 12 + 2  # positions, class token and patches; two blocks; the norm


def tensors(head: bool = True) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        named = {f"backbone.{name}": value for name, value in SHAPE.build().state_dict().items()}
        above = Head(16, 6, hidden_size=8, bottleneck_size=4).state_dict() if head else {}
    return named | {f"head.{name}": value for name, value in above.items()}


def found(state: dict[str, Tensor], **changes: object) -> Found:
    return replace(Found(network=SHAPE, tensors=state, origin=Origin(layout="test", path="a.pth")), **changes)


def test_everything_fits() -> None:
    loaded = assemble(found(tensors()), partial=True)
    assert loaded.missing == () and loaded.unused == () and loaded.notes == [] and loaded.head is not None
    assert loaded.description == "a.pth" and loaded.shape == SHAPE


def test_strict_lists_all_problems_and_names_the_way_out() -> None:
    state = tensors()
    del state["backbone.norm.weight"], state["head.mlp.0.bias"]
    state |= {"backbone.extra": torch.ones(1), "backbone.cls_token": torch.ones(1, 1, 3)}
    state["backbone.norm.bias"] = torch.ones(16, dtype=torch.int8)
    with pytest.raises(WeightsError) as caught:
        assemble(found(state))
    assert caught.value.message == (
        "The tensors of a.pth do not fit the network. missing: backbone.norm.weight, head.mlp.0.bias; "
        "unexpected: backbone.extra; of another shape: backbone.cls_token is [1, 1, 3], not [1, 1, 16], "
        "backbone.norm.bias is int8, not floating-point."
    )
    assert caught.value.hint == "Nothing was loaded. --partial loads what fits and reports the rest."


def test_partial_loads_what_fits_and_reports_the_rest() -> None:
    state = tensors()
    whole = assemble(found(state))
    del state["backbone.norm.weight"]
    state |= {"backbone.extra": torch.ones(1), "backbone.pos_embed": torch.ones(1, 10, 16)}
    loaded = assemble(found(state), partial=True)
    assert loaded.missing == ("backbone.norm.weight", "backbone.pos_embed")
    assert loaded.unused == ("backbone.extra",)
    total = TENSORS + 8
    assert loaded.notes == [
        f"Partly loaded: {total - 2} of {total} tensors of the network.",
        "Left at fresh values: backbone.norm.weight, backbone.pos_embed.",
        "In the file and not loaded: backbone.extra.",
        "Of another shape: backbone.pos_embed is [1, 10, 16], not [1, 5, 16].",
    ]
    fresh = {name.removeprefix("backbone.") for name in loaded.missing}
    for name, value in loaded.backbone.state_dict().items():
        assert torch.equal(value, whole.backbone.state_dict()[name]) == (name not in fresh - {"norm.weight"}), name


def test_what_partial_leaves_fresh_is_always_the_same_and_draws_nothing() -> None:
    state = tensors()
    del state["backbone.pos_embed"]
    before = torch.get_rng_state()
    first = assemble(found(state), partial=True)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert assemble(found(state), partial=True).weights_hash == first.weights_hash
    assert first.backbone.pos_embed.std() > 0.01


def test_half_a_head_is_left_out() -> None:
    state = tensors()
    del state["head.mlp.0.bias"]
    loaded = assemble(found(state), partial=True)
    assert loaded.head is None and loaded.missing == ()
    assert loaded.unused == tuple(name for name in state if name.startswith("head."))
    assert loaded.notes[-1] == "The projection head does not fit as a whole and was left out."


@pytest.mark.parametrize(("kept", "accepted"), [(TENSORS // 2, True), (TENSORS // 2 - 1, False)])
def test_less_than_half_of_the_backbone_is_refused(kept: int, accepted: bool) -> None:
    state = dict(list(tensors(head=False).items())[:kept])
    if accepted:
        assert len(assemble(found(state), partial=True).missing) == TENSORS - kept
        return
    with pytest.raises(
        WeightsError, match=rf"Only {kept} of the {TENSORS} tensors of the backbone fit a\.pth"
    ) as caught:
        assemble(found(state), partial=True)
    assert caught.value.hint is not None and "another network" in caught.value.hint


def test_a_classifier_is_whole_or_refused() -> None:
    shape = ClassifierShape(backbone=SHAPE, num_classes=3, pooling="mean")
    with torch.random.fork_rng(devices=[]):
        state = shape.build().state_dict()
    del state["backbone.blocks.0.norm1.bias"]
    about = {"network": shape, "classes": ("a", "b", "c")}
    loaded = assemble(found(state, **about), partial=True)
    assert loaded.missing == ("backbone.blocks.0.norm1.bias",) and loaded.classes == ("a", "b", "c")
    del state["head.bias"]
    with pytest.raises(WeightsError, match=r"The classifier of a\.pth does not fit: head\.bias") as caught:
        assemble(found(state, **about), partial=True)
    assert caught.value.hint == "--partial is for the tensors of a backbone."


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_other_channels_than_grey_and_colour(tmp_path: Path, channels: int) -> None:
    torch.save(replace(SHAPE, channels=channels).build().state_dict(), tmp_path / "a.pth")
    loaded = load_weights(str(tmp_path / "a.pth"), heads=2)
    assert loaded.channels == channels and loaded.mean == loaded.std == (0.5,) * channels
    assert f"How images of {channels} channels are normalised is a guess: mean and deviation 0.5." in loaded.notes


def test_preparation_of_the_file_and_its_interpolation() -> None:
    prepared = Preparation(mean=(0.1,), std=(0.2,), image_size=24, crop_ratio=0.9, interpolation="bilinear")
    loaded = assemble(found(tensors(), preparation=prepared))
    assert loaded.preparation == (24, 0.9, 1, (0.1,), (0.2,))
    assert loaded.notes == ["The weights were made for bilinear resizing of images; ibot resizes bicubically."]


def test_a_network_that_timm_builds() -> None:
    import timm

    kwargs = {
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
        "num_classes": 0,
        "in_chans": 1,
    }
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model("vit_tiny_patch16_224", **kwargs).eval()
    state = {f"backbone.{name}": value for name, value in model.state_dict().items()}
    network = TimmNetwork(name="vit_tiny_patch16_224", kwargs=kwargs)
    prepared = Preparation(mean=(0.1,), std=(0.2,), image_size=16)
    loaded = assemble(found(state, network=network, preparation=prepared))
    assert loaded.shape is None and loaded.channels == 1
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.backbone(images), model.forward_features(images))
    fresh = loaded.rebuild().state_dict()
    assert fresh.keys() == loaded.backbone.state_dict().keys()
    del state["backbone.norm.bias"]
    with pytest.raises(WeightsError, match=r"missing: backbone\.norm\.bias"):
        assemble(found(state, network=network, preparation=prepared))


def test_mask_token_of_a_backbone_alone(tmp_path: Path) -> None:
    backbone = build_backbone(
        arch="vit_tiny", image_size=16, channels=1, patch_size=8, width=16, depth=1, heads=2, mask_token=True
    )
    with torch.no_grad():
        backbone.masked_embed.fill_(2.0)
    torch.save({"state_dict": backbone.state_dict()}, tmp_path / "student.pth")
    loaded = load_weights(str(tmp_path / "student.pth"), heads=2)
    assert torch.equal(loaded.mask_token, torch.full((1, 16), 2.0)) and loaded.origin.method == "iBOT"


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": (0.5, 0.5)},
        {"std": (0.0,)},
        {"mean": (float("nan"),)},
        {"mean": ("x",)},
        {"crop_ratio": 0.0},
        {"crop_ratio": 3.5},
        {"image_size": 10**9},
        {"image_size": 0},
    ],
)
def test_images_that_cannot_be(changes: dict[str, Any]) -> None:
    usual = Preparation(mean=(0.5,), std=(0.5,), image_size=16)
    with pytest.raises(WeightsError, match=r"a\.pth asks for images that cannot be: \d+ pixels, crop ratio"):
        assemble(found(tensors(), preparation=replace(usual, **changes)))
