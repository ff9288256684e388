"""Layer scale: on both branches of every block, against a forward pass written out from the state dict."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ibot_cli.core.backbone import Crops, drop_path_factors
from ibot_cli.core.optim import layer_numbers, parameter_groups
from ibot_cli.core.vit import ViT
from tests.core import explicit, tiny


@pytest.fixture
def backbone() -> ViT:
    torch.manual_seed(0)
    backbone = tiny.vit(depth=3, registers=2, layer_scale=0.3)
    tiny.scatter(backbone, 0)
    return backbone


def images(size: int = 16) -> Tensor:
    return torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(1))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.detach().double(), theirs, atol=1e-5, rtol=1e-5)


def without_registers(tokens: Tensor) -> Tensor:
    return torch.cat([tokens[:, :1], tokens[:, 3:]], dim=1)


def test_every_output(backbone: ViT) -> None:
    state = explicit.double(backbone)
    factors = drop_path_factors(0.5, 3, 1, 3, torch.Generator().manual_seed(3))
    assert factors is not None
    outputs, _ = explicit.vit(state, images(), patch=4, heads=2, drop_path=factors[:, :, 0])
    close(backbone(images(), drop_path=factors[:, :, 0]), without_registers(outputs[-1]))
    outputs, weights = explicit.vit(state, images(), patch=4, heads=2)
    for ours, theirs in zip(backbone.intermediate(images(), 2), outputs[-2:], strict=True):
        close(ours, without_registers(theirs))
    rows = backbone.attention(images(), torch.tensor([0, 5]))
    close(rows[..., 1:], weights[:, :, [0, 7], 3:])
    expected, _ = explicit.vit(state, images(8), patch=4, heads=2)
    for ours, theirs in zip(backbone.together([Crops(images()), Crops(images(8))]), (outputs, expected), strict=True):
        close(ours, without_registers(theirs[-1]))


def test_factors_begin_at_the_initial_value_and_are_not_decayed() -> None:
    backbone = tiny.vit(layer_scale=0.25)
    factors = {name: value for name, value in backbone.named_parameters() if name.endswith(".gamma")}
    assert set(factors) == {f"blocks.{block}.ls{branch}.gamma" for block in (0, 1) for branch in (1, 2)}
    assert all((value == 0.25).all() for value in factors.values())
    group: dict[str, Any] = parameter_groups(backbone)[1]
    assert group["weight_decay"] == 0 and {id(value) for value in factors.values()} <= {id(p) for p in group["params"]}
    numbers = layer_numbers([f"backbone.{name}" for name in factors])
    assert numbers == {f"backbone.{name}": int(name.split(".")[1]) + 1 for name in factors}


def test_off_is_no_parameter() -> None:
    torch.manual_seed(0)
    without = tiny.vit()
    assert not any("gamma" in name for name in without.state_dict())
    torch.manual_seed(0)
    state = tiny.vit(layer_scale=0.1).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in without.state_dict().items())
