"""Building by name, and stochastic depth."""

from __future__ import annotations

import pytest
import torch

from ibot_cli.core.backbone import Backbone, build_backbone, drop_path_factors, residual

PARAMETERS = {
    "vit_tiny": 5_524_608,
    "vit_small": 21_666_048,
    "vit_base": 85_799_424,
    "vit_large": 303_302_656,
    "swin_tiny": 27_519_450,
    "swin_small": 48_837_354,
    "swin_base": 86_743_352,
    "swin_large": 194_995_668,
}


def on_meta(arch: str, **options: object) -> Backbone:
    with torch.device("meta"):
        return build_backbone(arch=arch, image_size=224, **options)


def count(backbone: Backbone) -> int:
    return sum(value.numel() for value in backbone.parameters())


@pytest.mark.parametrize(("arch", "expected"), PARAMETERS.items())
def test_published_parameter_counts(arch: str, expected: int) -> None:
    """Sections 2.1 and 2.2, mask token included; without it one vector less."""
    backbone = on_meta(arch, mask_token=True)
    assert count(backbone) == expected
    assert backbone.masked_embed is not None
    assert count(on_meta(arch)) == expected - backbone.masked_embed.numel()


def test_window_14_changes_only_the_position_tables() -> None:
    """27 x 27 instead of 13 x 13 offsets where the map is larger than 7, that is, in the first three stages."""
    added = (27**2 - 13**2) * (2 * 3 + 2 * 6 + 6 * 12)
    assert count(on_meta("swin_tiny", mask_token=True, window_size=14)) == PARAMETERS["swin_tiny"] + added


@pytest.mark.parametrize(
    ("arch", "dim", "blocks", "stride"),
    [("vit_small", 384, 12, 16), ("swin_tiny", 768, 12, 32), ("swin_base", 1024, 24, 32)],
)
def test_what_a_backbone_says_about_itself(arch: str, dim: int, blocks: int, stride: int) -> None:
    backbone = on_meta(arch)
    assert (backbone.dim, backbone.num_blocks, backbone.stride) == (dim, blocks, stride)
    assert (backbone.image_size, backbone.channels) == (224, 3)


@pytest.mark.parametrize(("arch", "large", "small"), [("vit_small", 197, 37), ("swin_tiny", 50, 10)])
def test_token_counts_at_224_and_96(arch: str, large: int, small: int) -> None:
    backbone = on_meta(arch)
    for size, tokens in ((224, large), (96, small)):
        images = torch.empty(2, 3, size, size, device="meta")
        assert backbone(images).shape == (2, tokens, backbone.dim)


def test_custom_sizes() -> None:
    backbone = build_backbone(arch="vit_tiny", image_size=15, channels=2, patch_size=5, width=24, depth=3, heads=4)
    assert backbone(torch.zeros(1, 2, 15, 15)).shape == (1, 10, 24)
    assert backbone.num_blocks == 3 and backbone.heads == 4


def test_unknown_name() -> None:
    with pytest.raises(KeyError, match="vit_huge"):
        build_backbone(arch="vit_huge", image_size=32)


def test_factors_are_zero_or_the_inverse_of_keeping() -> None:
    factors = drop_path_factors(0.4, 5, 3, 4000, torch.Generator().manual_seed(0))
    assert factors is not None and factors.shape == (5, 2, 3, 4000) and factors.dtype == torch.float32
    for block, rate in enumerate([0.0, 0.1, 0.2, 0.3, 0.4]):
        kept = factors[block] > 0
        torch.testing.assert_close(factors[block][kept], torch.full((int(kept.sum()),), 1 / (1 - rate)))
        dropped = (~kept).float().mean(dim=-1)  # of each branch and view
        assert (dropped - rate).abs().max() < 5 * (rate * (1 - rate) / 4000) ** 0.5 + 1e-9
        assert (factors[block].mean() - 1).abs() < 0.03


def test_branches_views_and_images_are_independent() -> None:
    factors = drop_path_factors(0.5, 2, 2, 5000, torch.Generator().manual_seed(0))
    assert factors is not None
    last = (factors[1] > 0).flatten(0, 1).float()  # 2 branches x 2 views
    correlation = torch.corrcoef(last) - torch.eye(4)
    assert correlation.abs().max() < 0.07


def test_factors_come_from_the_given_generator_only() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (drop_path_factors(0.5, 3, 2, 8, torch.Generator().manual_seed(7)) for _ in range(2))
    other = drop_path_factors(0.5, 3, 2, 8, torch.Generator().manual_seed(8))
    assert first is not None and second is not None and other is not None
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_rate_no_factors() -> None:
    assert drop_path_factors(0.0, 3, 2, 8, torch.Generator()) is None


def test_residual() -> None:
    generator = torch.Generator().manual_seed(0)
    x, branch = torch.randn(3, 4, 5, generator=generator), torch.randn(3, 4, 5, generator=generator)
    factor = torch.tensor([0.0, 1.0, 1.25])
    torch.testing.assert_close(residual(x, branch, None), x + branch)
    torch.testing.assert_close(
        residual(x, branch, factor), torch.stack([x[i] + factor[i] * branch[i] for i in range(3)])
    )
    mixed = residual(x, branch.bfloat16(), factor)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, residual(x, branch, factor), atol=0.03, rtol=0)
