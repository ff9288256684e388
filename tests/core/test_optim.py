"""Weight-decay groups, clipping and the gate of the update."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.heads import Head
from ibot_cli.core.objective import Network
from ibot_cli.core.optim import apply_schedule, build_optimizer, clip_gradients, gated_step, parameter_groups
from tests.core import tiny


def names_by_group(network: nn.Module) -> tuple[set[str], set[str]]:
    names = {id(value): name for name, value in network.named_parameters()}
    decayed, plain = parameter_groups(network)
    assert decayed["name"] == "decayed" and plain["weight_decay"] == 0
    return tuple({names[id(p)] for p in group["params"]} for group in (decayed, plain))


def test_biases_and_vectors_are_not_decayed_and_tokens_are() -> None:
    decayed, plain = names_by_group(Network(tiny.vit(registers=2), tiny.head()))
    names = ("cls_token", "register_tokens", "pos_embed", "masked_embed", "patch_embed.proj.weight")
    tokens = {f"backbone.{name}" for name in names}
    assert tokens | {"head.last_layer.weight_v", "head.last_layer.weight_g", "head.mlp.0.weight"} <= decayed
    assert {"backbone.norm.weight", "backbone.blocks.0.norm1.bias", "head.mlp.0.bias"} <= plain
    assert all(name.endswith(".bias") or "norm" in name for name in plain)


def test_frozen_norms_are_in_no_group() -> None:
    decayed, plain = names_by_group(Network(tiny.vit(), tiny.head(trainable_norm=False)))
    assert "head.last_layer.weight_v" in decayed
    assert "head.last_layer.weight_g" not in decayed | plain


def test_vit_small_has_57_decayed_and_102_other_tensors() -> None:
    """Section 3.2, for the published model: trainable norms and a mask token."""
    with torch.device("meta"):
        backbone = build_backbone(arch="vit_small", image_size=224, mask_token=True)
        decayed, plain = parameter_groups(Network(backbone, Head(384, 8192)))
    assert [len(decayed["params"]), len(plain["params"])] == [57, 102]


def test_schedule_reaches_the_right_groups() -> None:
    optimizer = build_optimizer(tiny.head(), betas=(0.9, 0.95), eps=1e-6)
    apply_schedule(optimizer, 0.123, 0.45)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.123, 0.45), (0.123, 0.0)]
    assert optimizer.defaults["betas"] == (0.9, 0.95) and optimizer.defaults["eps"] == 1e-6


def with_gradients(scales: list[float]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(3, 4)) for _ in scales]
    for parameter, scale in zip(parameters, scales, strict=True):
        parameter.grad = scale * torch.randn(3, 4, generator=generator)
    return [*parameters, nn.Parameter(torch.zeros(2))]  # the last one has no gradient


@pytest.mark.parametrize("limit", [0.5, 3.0, 1e3])
def test_global_clipping_is_that_of_torch(limit: float) -> None:
    ours, theirs = with_gradients([0.1, 1.0, 9.0]), with_gradients([0.1, 1.0, 9.0])
    total = torch.nn.utils.clip_grad_norm_(theirs, limit)
    torch.testing.assert_close(clip_gradients(ours, limit, "global"), total)
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_tensor_clipping_treats_each_gradient_alone() -> None:
    ours, theirs = with_gradients([0.1, 1.0, 9.0]), with_gradients([0.1, 1.0, 9.0])
    norms = [torch.nn.utils.clip_grad_norm_([p], 3.0) for p in theirs[:3]]
    total = clip_gradients(ours, 3.0, "tensor")
    assert total.item() == pytest.approx(math.sqrt(sum(float(n) ** 2 for n in norms)))
    assert norms[0] < 3 < norms[2]
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_no_limit_only_measures() -> None:
    ours, theirs = with_gradients([5.0, 7.0]), with_gradients([5.0, 7.0])
    assert clip_gradients(ours, 0.0, "tensor") > 5
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours[:2], theirs[:2], strict=True))
    assert clip_gradients([torch.zeros(2)], 1.0, "global") == 0


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_bad_gradient_shows_in_the_norm(bad: float) -> None:
    parameters = with_gradients([1.0, 1.0])
    parameters[1].grad[0, 0] = bad
    assert not torch.isfinite(clip_gradients(parameters, 3.0, "tensor"))


@pytest.mark.parametrize("scale", [None, torch.tensor(4.0)])
@pytest.mark.parametrize("mode", ["tensor", "global"])
def test_finite_gradients_whose_squares_are_not_are_clipped(mode: str, scale: Tensor | None) -> None:
    """As those of a Swin's mask token are before its first update."""
    sizes = (1e23, 1e21, 1.0)
    parameters = [nn.Parameter(torch.zeros(4)) for _ in sizes]
    for parameter, size in zip(parameters, sizes, strict=True):
        parameter.grad = torch.tensor([size, -size, 0.0, 0.0])
    total = clip_gradients(parameters, 3.0, mode, scale)
    assert math.isfinite(total) and total.item() * (1 if scale is None else 4) == pytest.approx(2e23, rel=1e-3)
    first, second, third = (torch.linalg.vector_norm(p.grad).item() for p in parameters if p.grad is not None)
    assert first == pytest.approx(3 / 2**0.5, rel=1e-3)  # their bound is the sum of the entries
    assert second == pytest.approx(first if mode == "tensor" else first / 100, rel=1e-4)
    alone = 2**0.5 / (1 if scale is None else 4)
    assert third == pytest.approx(alone if mode == "tensor" else 3 * 2**0.5 / 2e23, rel=1e-3)
    parameters[2].grad = torch.tensor([math.inf, 0.0, 0.0, 0.0])
    assert not torch.isfinite(clip_gradients(parameters, 3.0, mode, scale))


def step(optimizer: torch.optim.Optimizer, head: nn.Module, finite: bool, value: float = 1.0) -> None:
    for parameter in head.parameters():
        parameter.grad = torch.full_like(parameter, value)
    apply_schedule(optimizer, 0.1, 0.1)
    gated_step(optimizer, torch.tensor(finite))


def test_gate_keeps_weights_moments_and_step_counts() -> None:
    """Two good steps with a bad one before, between and after equal two good steps."""
    head = tiny.head()
    twin = copy.deepcopy(head)
    gated = build_optimizer(head, betas=(0.9, 0.999), eps=1e-8)
    plain = torch.optim.AdamW(parameter_groups(twin), lr=0.0, betas=(0.9, 0.999), eps=1e-8)
    for finite, value in ((False, math.nan), (True, 1.0), (False, math.inf), (True, -0.5), (False, math.nan)):
        step(gated, head, finite, value)
        if finite:
            for parameter in twin.parameters():
                parameter.grad = torch.full_like(parameter, value)
            apply_schedule(plain, 0.1, 0.1)
            plain.step()
    for ours, theirs in zip(head.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert {int(state["step"]) for state in gated.state.values()} == {2}


def test_gate_does_not_outlive_its_step() -> None:
    head = tiny.head()
    optimizer = build_optimizer(head, betas=(0.9, 0.999), eps=1e-8)
    step(optimizer, head, finite=False)
    before = head.mlp[0].weight.detach().clone()
    optimizer.step()
    assert not torch.equal(head.mlp[0].weight, before)
