"""Self-attention against sums written out in float64, in every way that a device or a type may choose."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ibot_cli.core import attention
from ibot_cli.core.attention import attend_qkv

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def written_out(qkv: Tensor, bias: Tensor | None) -> Tensor:
    query, key, value = (qkv[..., i, :, :] for i in range(3))
    scores = torch.einsum("...qhd,...khd->...hqk", query, key) / qkv.shape[-1] ** 0.5
    weights = (scores if bias is None else scores + bias).softmax(dim=-1)
    return torch.einsum("...hqk,...khd->...qhd", weights, value).flatten(-2)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def error(ours: Tensor | None, theirs: Tensor | None) -> float:
    assert ours is not None and theirs is not None
    return float(((ours.double() - theirs).norm() / theirs.norm()).detach())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["plain", "bias", "windows"])
@pytest.mark.parametrize("device", ["cpu", "others"])
def test_values_and_gradients(device: str, kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other devices than a CPU train with torch's kernel, whatever the type and the bias."""
    if device == "others":
        monkeypatch.setattr(attention, "_written_out", attention._by_kernel)
    shape = (2, 3, 7) if kind == "windows" else (2, 7)
    exact = numbers(*shape, 3, 2, 8).to(dtype).double().requires_grad_()
    bias = numbers(*shape[1:-1], 2, 7, 7).to(dtype).double().requires_grad_() if kind != "plain" else None
    given = [x.detach().to(dtype).requires_grad_() for x in (exact, bias) if x is not None]
    ours, theirs = attend_qkv(*given), written_out(exact, bias)
    assert ours.dtype == dtype and error(ours, theirs) < TOLERANCE[dtype]
    weights = numbers(*theirs.shape)
    (ours * weights.to(dtype)).sum().backward()
    (theirs * weights).sum().backward()
    for mine, other in zip(given, [x for x in (exact, bias) if x is not None], strict=True):
        assert error(mine.grad, other.grad) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_without_gradient(dtype: torch.dtype) -> None:
    qkv, bias = numbers(2, 3, 7, 3, 2, 8).to(dtype), numbers(3, 2, 7, 7).to(dtype)
    assert error(attend_qkv(qkv, bias), written_out(qkv.double(), bias.double())) < TOLERANCE[dtype]


def test_tokens_that_do_not_see_each_other() -> None:
    apart = torch.zeros(4, 4).masked_fill(torch.arange(4)[:, None] // 2 != torch.arange(4) // 2, float("-inf"))
    qkv = numbers(1, 4, 3, 2, 8).float().requires_grad_()
    both = attend_qkv(qkv, apart)
    halves = torch.cat([attend_qkv(qkv[:, :2]), attend_qkv(qkv[:, 2:])], dim=1)
    torch.testing.assert_close(both, halves)


def test_autocast_does_not_change_the_type() -> None:
    qkv = numbers(1, 4, 3, 2, 8).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = attend_qkv(qkv)
    assert torch.equal(out, attend_qkv(qkv)) and out.dtype == torch.float32
