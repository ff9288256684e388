"""A backbone for other channels and another size gives what it gave, where that is defined."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from timm.models import adapt_input_conv

from ibot_cli.core.backbone import Backbone
from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.weights.adapted import Adapted, adapted
from ibot_cli.weights.shapes import BackboneShape
from ibot_cli.weights.trainable import Trainable

VIT = BackboneShape(arch="vit_tiny", image_size=16, patch_size=4, width=16, depth=2, heads=2)
SWIN = BackboneShape(arch="swin_tiny", image_size=64, window_size=2)


def parts_of(shape: BackboneShape) -> Trainable:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Trainable(shape=shape, tensors=shape.build().state_dict())


def network(found: Adapted) -> Backbone:
    built = found.parts.shape.build().eval()
    built.load_state_dict(dict(found.parts.tensors))
    return built


def images(channels: int, size: int = 16) -> torch.Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3)])
def test_a_grey_image_gives_the_same_tokens(before: int, after: int) -> None:
    parts = parts_of(replace(VIT, channels=before))
    found = adapted(parts, channels=after, image_size=16)
    grey = images(1)
    with torch.no_grad():
        expected = network(Adapted(parts=parts, changes=()))(grey.expand(-1, before, -1, -1))
        torch.testing.assert_close(network(found)(grey.expand(-1, after, -1, -1)), expected, atol=1e-5, rtol=1e-5)
    assert found.changes == (f"patch embedding {before} -> {after} channel{'' if after == 1 else 's'}",)
    assert found.parts.tensors["patch_embed.proj.weight"].is_contiguous()


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3)])
def test_a_grey_image_gives_the_same_tokens_however_it_is_normalised(before: int, after: int) -> None:
    statistics = {1: ((0.3,), (0.35,)), 3: ((0.48, 0.45, 0.4), (0.2, 0.25, 0.3))}
    parts = parts_of(replace(VIT, channels=before))
    parts.tensors["patch_embed.proj.bias"].copy_(torch.linspace(-1, 1, 16))
    found = adapted(parts, channels=after, image_size=16, seen=statistics[before], shown=statistics[after])
    grey = images(1)

    def normalised(channels: int) -> torch.Tensor:
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in statistics[channels])
        return (grey.expand(-1, channels, -1, -1) - mean) / std

    with torch.no_grad():
        expected = network(Adapted(parts=parts, changes=()))(normalised(before))
        torch.testing.assert_close(network(found)(normalised(after)), expected, atol=1e-5, rtol=1e-5)


def test_positions_are_those_that_the_network_computes_itself() -> None:
    parts = parts_of(replace(VIT, channels=1))
    found = adapted(parts, channels=1, image_size=24)
    assert found.changes == ("positions 4x4 -> 6x6",) and found.parts.shape.image_size == 24
    with torch.no_grad():
        expected = network(Adapted(parts=parts, changes=()))(images(1, 24))
        torch.testing.assert_close(network(found)(images(1, 24)), expected, atol=1e-5, rtol=1e-5)


def test_what_fits_is_not_touched() -> None:
    parts = parts_of(VIT)
    assert adapted(parts, channels=3, image_size=16) == Adapted(parts=parts, changes=())


def test_a_swin_has_no_positions() -> None:
    with torch.device("meta"):
        parts = Trainable(shape=SWIN, tensors=SWIN.build().state_dict())
        found = adapted(parts, channels=1, image_size=128)
    assert found.changes == ("patch embedding 3 -> 1 channel", "windows laid out for 128 pixels")
    assert found.parts.shape == replace(SWIN, channels=1, image_size=128)


@pytest.mark.parametrize(("before", "after"), [(3, 2), (3, 5), (1, 4), (3, 13), (3, 6)])
def test_channels_that_are_alike_give_the_same_tokens(before: int, after: int) -> None:
    parts = parts_of(replace(VIT, channels=before))
    found = adapted(parts, channels=after, image_size=16)
    weight = found.parts.tensors["patch_embed.proj.weight"]
    oracle = adapt_input_conv(after, parts.tensors["patch_embed.proj.weight"]) if before == 3 else None
    assert oracle is None or torch.allclose(weight, oracle, atol=1e-6)
    assert found.changes == (f"patch embedding {before} -> {after} channels, repeated and scaled",)
    if after % before == 0:
        grey = images(1)
        with torch.no_grad():
            expected = network(Adapted(parts=parts, changes=()))(grey.expand(-1, before, -1, -1))
            given = network(found)(grey.expand(-1, after, -1, -1))
        torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(4, 3), (4, 1), (13, 3)])
def test_other_channels_are_refused(before: int, after: int) -> None:
    with pytest.raises(WeightsError, match=f"see images with {before} channels, the run has {after} ch") as caught:
        adapted(parts_of(replace(VIT, channels=before)), channels=after, image_size=16)
    assert caught.value.hint == "Only weights for 1 or 3 channels can be turned into others."


def test_a_size_that_leaves_half_a_patch_is_refused() -> None:
    with pytest.raises(UsageError, match="no multiple of 4"):
        adapted(parts_of(VIT), channels=3, image_size=18)
