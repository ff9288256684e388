"""The vision transformer against a forward pass written out from its state dict."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ibot_cli.core.backbone import build_backbone, drop_path_factors
from ibot_cli.core.vit import ViT
from tests import reference
from tests.core import explicit, tiny


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours.detach().double(), theirs.double(), atol=tolerance, rtol=tolerance)


@pytest.fixture
def backbone() -> ViT:
    torch.manual_seed(0)
    backbone = tiny.vit(depth=3)
    tiny.scatter(backbone, 0)
    return backbone


def images(size: int = 16, count: int = 3) -> Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def mask(patches: int, count: int = 3) -> Tensor:
    return torch.rand(count, patches, generator=torch.Generator().manual_seed(2)) < 0.4


@pytest.mark.parametrize("size", [16, 8, 24])
def test_forward_with_mask_and_drop_path(backbone: ViT, size: int) -> None:
    hidden = mask((size // 4) ** 2)
    factors = drop_path_factors(0.5, 3, 1, 3, torch.Generator().manual_seed(3))
    assert factors is not None
    outputs, _ = explicit.vit(
        explicit.double(backbone), images(size), patch=4, heads=2, mask=hidden, drop_path=factors[:, :, 0]
    )
    close(backbone(images(size), hidden, factors[:, :, 0]), outputs[-1])


def test_other_shapes_of_image(backbone: ViT) -> None:
    wide = torch.randn(2, 1, 8, 24, generator=torch.Generator().manual_seed(1))
    outputs, _ = explicit.vit(explicit.double(backbone), wide, patch=4, heads=2)
    close(backbone(wide), outputs[-1])


def test_gradient_of_the_mask_token_and_positions(backbone: ViT) -> None:
    hidden, weights = mask(4), torch.linspace(-1, 1, 16)
    (backbone(images(8), hidden) * weights).sum().backward()
    leaves = {name: value.detach().double().requires_grad_() for name, value in backbone.named_parameters()}
    outputs, _ = explicit.vit(leaves, images(8), patch=4, heads=2, mask=hidden)
    (outputs[-1] * weights).sum().backward()
    for name, value in backbone.named_parameters():
        close(value.grad, leaves[name].grad, 1e-4)


def test_masked_pixels_do_not_matter_but_their_places_do(backbone: ViT) -> None:
    hidden = torch.zeros(1, 16, dtype=torch.bool)
    hidden[0, 5] = True
    image = images(count=1)
    painted = image.clone()
    painted[:, :, 4:8, 4:8] = 9.0  # patch 5 of the 4 x 4 grid
    assert torch.equal(backbone(image, hidden), backbone(painted, hidden))
    assert not torch.allclose(backbone(image), backbone(painted))
    everything = torch.ones(1, 16, dtype=torch.bool)
    tokens = backbone(image, everything)[0, 1:]
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3  # same token, other position


def test_no_mask_equals_nothing_masked(backbone: ViT) -> None:
    assert torch.equal(backbone(images()), backbone(images(), torch.zeros(3, 16, dtype=torch.bool)))


def test_drop_path_of_ones_equals_none(backbone: ViT) -> None:
    close(backbone(images(), None, torch.ones(3, 2, 3)), backbone(images()).detach())


def test_drop_path_acts_per_image_and_branch(backbone: ViT) -> None:
    """An image without its branches keeps its embedding; the others are not touched."""
    factors = torch.ones(3, 2, 3)
    factors[:, :, 1] = 0
    with torch.no_grad():
        dropped, whole = backbone(images(), None, factors), backbone(images())
        close(dropped[[0, 2]], whole[[0, 2]])
        close(dropped[1], backbone.norm(backbone._embed(images()[1:2], None))[0])
        factors = torch.ones(3, 2, 3)
        factors[2, 1, 0] = 0
        assert not torch.allclose(backbone(images(), None, factors)[0], whole[0], atol=1e-3)


def test_mask_without_token_is_refused() -> None:
    with pytest.raises(ValueError, match="no mask token"):
        tiny.vit(mask_token=False)(images(), mask(16))


def test_intermediate_features(backbone: ViT) -> None:
    outputs, _ = explicit.vit(explicit.double(backbone), images(8), patch=4, heads=2)
    features = backbone.intermediate(images(8), 2)
    assert len(features) == 2
    for ours, theirs in zip(features, outputs[-2:], strict=True):
        close(ours, theirs)
    close(features[-1], backbone(images(8)).detach())


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 8)])
def test_attention_of_the_last_block(backbone: ViT, height: int, width: int) -> None:
    views = torch.randn(3, 1, height, width, generator=torch.Generator().manual_seed(1))
    _, expected = explicit.vit(explicit.double(backbone), views, patch=4, heads=2)
    tokens = 1 + height * width // 16
    assert expected.shape == (3, 2, tokens, tokens)
    for queries in ([0], [5, 0, 12, 5], list(range(tokens))):
        attention = backbone.attention(views, torch.tensor(queries))
        close(attention, expected[:, :, queries])
        torch.testing.assert_close(attention.sum(-1), torch.ones(3, 2, len(queries)))


def test_attention_is_that_of_the_forward_pass(backbone: ViT) -> None:
    """Its weighted sum of the values is what the layer hands to its output projection."""
    layer = backbone.blocks[-1].attn
    seen: dict[str, Tensor] = {}
    with (
        layer.qkv.register_forward_hook(lambda _, given, out: seen.update(qkv=out)),
        layer.proj.register_forward_pre_hook(lambda _, given: seen.update(heads=given[0])),
        torch.no_grad(),
    ):
        backbone(images(24))
        attention = backbone.attention(images(24), torch.arange(37))
    value = seen["qkv"].view(3, 37, 3, 2, 8)[:, :, 2].transpose(1, 2)
    close((attention @ value).transpose(1, 2).reshape(3 * 37, 16), seen["heads"])


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (14, 14), (37, 37), (2, 9), (14, 7), (1, 1)])
def test_position_interpolation(rows: int, columns: int) -> None:
    backbone = build_backbone(arch="vit_tiny", image_size=224, width=8, depth=1, heads=1)
    ours = backbone.positions(rows, columns)
    assert ours.shape == (1, 1 + rows * columns, 8)
    close(ours, reference.positions(backbone.pos_embed.detach(), rows, columns), 1e-6)
    if (rows, columns) == (14, 14):
        assert ours is backbone.pos_embed


def test_the_added_tenth_matters() -> None:
    """Plain bicubic interpolation to the size gives other positions; parity needs the shifted scale."""
    torch.manual_seed(0)
    backbone = tiny.vit()
    plain = torch.nn.functional.interpolate(
        backbone.pos_embed[:, 1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2), size=(2, 2), mode="bicubic"
    )
    ours = backbone.positions(2, 2)[0, 1:].T.reshape(1, 16, 2, 2)
    assert (ours - plain).abs().max() > 1e-4


def test_initialisation() -> None:
    torch.manual_seed(0)
    backbone = tiny.vit(depth=8, channels=3)
    weights = torch.cat([m.weight.flatten() for m in backbone.blocks.modules() if isinstance(m, torch.nn.Linear)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.03)
    assert all(not m.bias.any() for m in backbone.modules() if isinstance(m, torch.nn.Linear))
    assert backbone.pos_embed.std().item() == pytest.approx(0.02, rel=0.2) and backbone.cls_token.any()
    assert backbone.masked_embed is not None and not backbone.masked_embed.any()
    assert all(m.eps == 1e-6 for m in backbone.modules() if isinstance(m, torch.nn.LayerNorm))
    bound = 1 / (3 * 4 * 4) ** 0.5  # torch's own for convolutions
    assert 0.8 * bound < backbone.patch_embed.proj.weight.abs().max() <= bound


def test_forward_uses_no_random_numbers(backbone: ViT) -> None:
    state = torch.get_rng_state()
    backbone.train()
    first = backbone(images(), mask(16))
    assert torch.equal(first, backbone(images(), mask(16)))
    assert torch.equal(torch.get_rng_state(), state)


def test_bf16_autocast_with_drop_path_stays_close(backbone: ViT) -> None:
    factors = drop_path_factors(0.3, 3, 1, 3, torch.Generator().manual_seed(3))
    assert factors is not None
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        low = backbone(images(), mask(16), factors[:, :, 0])
    assert (low.float() - backbone(images(), mask(16), factors[:, :, 0])).abs().max() < 0.15


@pytest.mark.parametrize("wanted", [[], [1, 2, 9], list(range(12))])
def test_class_tokens_and_wanted_patches_only(backbone: ViT, wanted: list[int]) -> None:
    factors = drop_path_factors(0.5, 3, 1, 3, torch.Generator().manual_seed(3))
    assert factors is not None
    inputs = (images(8), mask(4), factors[:, :, 0])
    every = backbone(*inputs)
    expected = torch.cat([every[:, 0], every[:, 1:].flatten(0, 1)[wanted]])
    ours = backbone(*inputs, torch.tensor(wanted, dtype=torch.int64))
    close(ours, expected.detach())
    weights = torch.linspace(-1, 1, ours.numel()).view_as(ours)
    names, leaves = zip(*backbone.named_parameters(), strict=True)
    theirs = torch.autograd.grad((expected * weights).sum(), leaves)
    for name, a, b in zip(names, torch.autograd.grad((ours * weights).sum(), leaves), theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=name)
