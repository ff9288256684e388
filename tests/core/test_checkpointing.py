"""Blocks that are computed again in the backward pass give the same bits and keep less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ibot_cli.core.backbone import Backbone, Crops, build_backbone
from ibot_cli.train.memory import AllocationMeter

SIZES: dict[str, dict[str, Any]] = {
    "vit_tiny": {"image_size": 32, "patch_size": 4, "width": 24, "depth": 4, "heads": 2, "registers": 1},
    "swin_tiny": {"image_size": 64},
}


def backbone_of(arch: str) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_backbone(arch=arch, channels=2, mask_token=True, **SIZES[arch])


def crops_of(backbone: Backbone, dtype: torch.dtype) -> list[Crops]:
    """Three masked images with drop path, of which class tokens and two patches are wanted, and two smaller ones."""
    generator = torch.Generator().manual_seed(1)

    def images(number: int, size: int) -> Tensor:
        return torch.randn(number, 2, size, size, generator=generator).to(dtype)

    def factors(number: int) -> Tensor:
        return torch.randint(0, 2, (backbone.num_blocks, 2, number), generator=generator) * 2.0

    size = backbone.image_size
    mask = torch.rand(3, (size // backbone.stride) ** 2, generator=generator) < 0.4
    none = torch.empty(0, dtype=torch.int64)
    return [
        Crops(images(3, size), mask, factors(3).to(dtype), torch.tensor([0, 5])),
        Crops(images(2, size // 2), None, factors(2).to(dtype), none),
    ]


def run(backbone: Backbone, crops: list[Crops], autocast: bool) -> tuple[list[Tensor], list[Tensor], int]:
    """Tokens, gradients, and bytes at the peak."""
    with AllocationMeter() as meter:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            tokens = backbone.together(crops)
        torch.stack([x.float().square().sum() for x in tokens]).sum().backward()
    grads = [p.grad for p in backbone.parameters() if p.grad is not None]
    backbone.zero_grad(set_to_none=True)
    return [x.detach() for x in tokens], grads, meter.peak


@pytest.mark.parametrize(
    ("arch", "arithmetic"),
    [
        ("vit_tiny", "float32"),
        ("vit_tiny", "float64"),
        ("vit_tiny", "bf16"),
        ("swin_tiny", "float32"),
        pytest.param("swin_tiny", "float64", marks=pytest.mark.slow),
        pytest.param("swin_tiny", "bf16", marks=pytest.mark.slow),
    ],
)
def test_same_bits_from_less_memory(arch: str, arithmetic: str) -> None:
    dtype = torch.float64 if arithmetic == "float64" else torch.float32
    backbone = backbone_of(arch).to(dtype)
    crops = crops_of(backbone, dtype)
    tokens, grads, peak = run(backbone, crops, arithmetic == "bf16")
    backbone.checkpointing = True
    state = torch.get_rng_state()
    again = run(backbone, crops, arithmetic == "bf16")
    assert all(torch.equal(x, y) for x, y in zip(tokens, again[0], strict=True))
    assert len(grads) > 20 and all(torch.equal(x, y) for x, y in zip(grads, again[1], strict=True))
    assert again[2] < peak
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_computed_again_without_gradients() -> None:
    backbone = backbone_of("vit_tiny")
    backbone.checkpointing = True
    calls = []
    original = backbone.run_block
    backbone.run_block = lambda *inputs: calls.append(0) or original(*inputs)
    with torch.no_grad():
        backbone(torch.zeros(1, 2, 32, 32))
    assert len(calls) == 4
    backbone(torch.zeros(1, 2, 32, 32)).sum().backward()
    assert len(calls) == 3 * 4
