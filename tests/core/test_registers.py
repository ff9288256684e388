"""Registers: in every block, in no output; against a forward pass written out from the state dict."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ibot_cli.core.backbone import drop_path_factors
from ibot_cli.core.classifier import Classifier
from ibot_cli.core.vit import ViT
from tests.core import explicit, tiny

REGISTERS = 3


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours.detach().double(), theirs.double(), atol=tolerance, rtol=tolerance)


def without(tokens: Tensor, dim: int = 1) -> Tensor:
    """Class token and patches of tokens with registers."""
    first, _, patches = tokens.split([1, REGISTERS, tokens.shape[dim] - 1 - REGISTERS], dim=dim)
    return torch.cat([first, patches], dim=dim)


@pytest.fixture
def backbone() -> ViT:
    torch.manual_seed(0)
    backbone = tiny.vit(depth=3, registers=REGISTERS)
    tiny.scatter(backbone, 0)
    return backbone


def images(size: int = 16) -> Tensor:
    return torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(1))


def mask(patches: int) -> Tensor:
    return torch.rand(3, patches, generator=torch.Generator().manual_seed(2)) < 0.4


@pytest.mark.parametrize("size", [16, 8, 24])
def test_every_output(backbone: ViT, size: int) -> None:
    hidden = mask((size // 4) ** 2)
    factors = drop_path_factors(0.5, 3, 1, 3, torch.Generator().manual_seed(3))
    assert factors is not None
    state = explicit.double(backbone)
    outputs, _ = explicit.vit(state, images(size), patch=4, heads=2, mask=hidden, drop_path=factors[:, :, 0])
    close(backbone(images(size), hidden, factors[:, :, 0]), without(outputs[-1]))
    outputs, _ = explicit.vit(state, images(size), patch=4, heads=2)
    for ours, theirs in zip(backbone.intermediate(images(size), 2), outputs[-2:], strict=True):
        close(ours, without(theirs))
    for block, theirs in zip(backbone.last_blocks(images(size), 2), outputs[-2:], strict=True):
        close(torch.cat([block.cls[:, None], block.patches], dim=1), without(theirs))
        close(backbone.norm(block.raw), block.patches.detach())


@pytest.mark.parametrize("wanted", [[], [1, 2, 9], list(range(12))])
def test_class_tokens_and_wanted_patches_only(backbone: ViT, wanted: list[int]) -> None:
    every = backbone(images(8), mask(4))
    expected = torch.cat([every[:, 0], every[:, 1:].flatten(0, 1)[wanted]])
    ours = backbone(images(8), mask(4), None, torch.tensor(wanted, dtype=torch.int64))
    close(ours, expected.detach())
    weights = torch.linspace(-1, 1, ours.numel()).view_as(ours)
    leaves = list(backbone.parameters())
    theirs = torch.autograd.grad((expected * weights).sum(), leaves)
    for a, b in zip(torch.autograd.grad((ours * weights).sum(), leaves), theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_attention_joins_them_with_the_class_token(backbone: ViT) -> None:
    _, full = explicit.vit(explicit.double(backbone), images(), patch=4, heads=2)
    rows = without(full, dim=2)
    expected = without(rows, dim=3)
    expected[..., 0] += rows[..., 1 : 1 + REGISTERS].sum(-1)
    for queries in ([0], [5, 0, 12, 5], list(range(17))):
        close(backbone.attention(images(), torch.tensor(queries)), expected[:, :, queries])


def test_they_change_what_the_network_computes_and_learn(backbone: ViT) -> None:
    before = backbone(images())
    before.square().sum().backward()
    assert backbone.register_tokens is not None and backbone.register_tokens.grad is not None
    assert backbone.register_tokens.grad.abs().max() > 0
    with torch.no_grad():
        backbone.register_tokens.neg_()
        assert not torch.allclose(backbone(images()), before, atol=1e-3)


def test_initialisation_leaves_the_other_weights_as_they_are() -> None:
    states = []
    for registers in (0, 2):
        torch.manual_seed(0)
        states.append(tiny.vit(registers=registers).state_dict())
    plain, with_registers = states
    added = with_registers.pop("register_tokens")
    assert added.shape == (1, 2, 16) and 0 < added.std() < 1e-5
    assert tiny.same(plain, with_registers)


def test_mean_pooling_takes_patches_only(backbone: ViT) -> None:
    classifier = Classifier(backbone, 5)
    assert classifier.fc_norm is not None
    raw = backbone.last_blocks(images(), 1)[0].raw
    close(classifier.features(images()), classifier.fc_norm(raw.mean(dim=1)).detach())
