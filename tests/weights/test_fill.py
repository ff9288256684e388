"""Networks that are built to be filled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ibot_cli.core.heads import Head
from ibot_cli.weights.fill import unfilled
from ibot_cli.weights.finetuned import ClassifierShape
from ibot_cli.weights.layouts.found import TimmNetwork
from ibot_cli.weights.shapes import BackboneShape

VIT = BackboneShape(arch="vit_tiny", image_size=16, patch_size=8, width=16, depth=1, heads=2)
SWIN = BackboneShape(arch="swin_tiny", image_size=64, window_size=2)
BUILDS: dict[str, Callable[[], nn.Module]] = {
    "ViT": VIT.build,
    "classifier": ClassifierShape(backbone=VIT, num_classes=3, pooling="mean").build,
    "head": lambda: Head(16, 6, hidden_size=8, bottleneck_size=4, norm="batch", trainable_norm=False),
    "Swin, whose tables are computed": SWIN.build,
    "model of timm": TimmNetwork(name="test_vit", kwargs={"num_classes": 0}).build,
}


@pytest.mark.parametrize("name", BUILDS)
def test_filled_it_is_the_network(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = BUILDS[name]().eval()
    before = torch.random.get_rng_state()
    found = unfilled(BUILDS[name]).eval()
    assert torch.equal(torch.random.get_rng_state(), before)
    found.load_state_dict(whole.state_dict())
    assert [p.requires_grad for p in found.parameters()] == [p.requires_grad for p in whole.parameters()]
    tables = dict(whole.named_buffers())
    assert all(torch.equal(value, tables[key]) for key, value in found.named_buffers())
    size = 160 if name.endswith("timm") else VIT.image_size if name != "Swin, whose tables are computed" else 64
    images = torch.rand(1, 16) if name == "head" else torch.rand(1, 3, size, size)
    call = (lambda network: network.bottleneck(images)) if name == "head" else (lambda network: network(images))
    with torch.no_grad():
        assert torch.equal(call(found), call(whole))


def test_weights_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    real = nn.init.trunc_normal_

    def recorded(tensor: Tensor, **arguments: float) -> Tensor:
        drawn.append(tensor.is_meta)
        return real(tensor, **arguments)

    monkeypatch.setattr(nn.init, "trunc_normal_", recorded)
    unfilled(VIT.build)
    assert drawn and all(drawn)


def test_nothing_stays_nothing() -> None:
    assert unfilled(lambda: None) is None


def test_a_network_that_needs_values_while_it_is_built_is_built_once_more() -> None:
    def build() -> nn.Module:
        layer = nn.Linear(2, 2)
        return layer if layer.weight.sum().item() < 100 else nn.Identity()

    assert not any(value.is_meta for value in unfilled(build).state_dict().values())
