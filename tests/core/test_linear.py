"""Layers that make again what they do not keep, against torch's plain ones: equal bit for bit on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.layers import Mlp
from torch import Tensor, nn

from ibot_cli.core import linear
from ibot_cli.core.linear import gelu_linear, norm_linear, norm_mlp

Layer = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU takes the plain layers."""
    monkeypatch.setattr(linear, "_plain", lambda x: not torch.is_grad_enabled())


class Layers(nn.Module):
    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.mlp = nn.LayerNorm(8, eps=1e-6), Mlp(8, 24)
        self.mlp.act = nn.GELU(approximate)
        for value in self.parameters():
            nn.init.normal_(value)

    def plain(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.norm(x))
        return out

    def lean(self, x: Tensor) -> Tensor:
        return norm_mlp(x, self.norm, self.mlp)


def tokens(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1), dtype=dtype).requires_grad_()


def results(layer: Layer, layers: Layers, x: Tensor, half: torch.dtype | None = None) -> list[Tensor | None]:
    """The output and all gradients."""
    layers.zero_grad()
    x.grad = None
    with torch.autocast("cpu", half, enabled=half is not None):
        out = layer(x)
    (out.float().sin() if half else out.sin()).sum().backward()
    return [out.detach(), x.grad, *[value.grad for value in layers.parameters()]]


def same(ours: list[Tensor | None], theirs: list[Tensor | None]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_the_plain_layers(dtype: torch.dtype, approximate: str) -> None:
    layers, x = Layers(approximate).to(dtype), tokens(dtype)
    same(results(layers.lean, layers, x), results(layers.plain, layers, x))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_also_under_autocast(half: torch.dtype) -> None:
    layers, x = Layers(), tokens()
    out, *grads = results(layers.lean, layers, x, half)
    assert out is not None and out.dtype == half
    assert all(grad is not None and grad.dtype == torch.float32 for grad in grads)
    same([out, *grads], results(layers.plain, layers, x, half))


def test_gradients_by_differences() -> None:
    layers, x = Layers().double(), tokens(torch.float64)
    assert torch.autograd.gradcheck(lambda given, *_: layers.lean(given), (x, *layers.parameters()))


@pytest.mark.parametrize("frozen", ["norm", "mlp.fc1", "mlp.fc2.bias", ""])
def test_what_is_frozen_has_no_gradient(frozen: str) -> None:
    """The empty name freezes all parameters: only the tokens have a gradient."""
    layers, x = Layers(), tokens()
    for name, value in layers.named_parameters():
        value.requires_grad_(not name.startswith(frozen))
    same(results(layers.lean, layers, x), results(layers.plain, layers, x))


def test_tokens_without_gradient() -> None:
    layers, x = Layers(), tokens().detach()
    same(results(layers.lean, layers, x), results(layers.plain, layers, x))


def test_neither_the_norm_nor_the_activation_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, x = Layers(), tokens()

    def kept(layer: Layer) -> int:
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            layer(x)
        return sum(sizes.values()) - sum(v.numel() for v in layers.parameters() if v.data_ptr() in sizes)

    rows = x[..., 0].numel()
    assert kept(layers.plain) - kept(layers.lean) == rows * (8 + 24)
    monkeypatch.undo()
    assert kept(layers.plain) == kept(layers.lean)  # on a CPU time counts more


def test_the_parts_alone_and_without_gradient() -> None:
    layers, x = Layers(), tokens()
    with torch.no_grad():
        hidden = norm_linear(x, layers.norm, layers.mlp.fc1)
        assert torch.equal(gelu_linear(hidden, layers.mlp.act, layers.mlp.fc2), layers.plain(x))
    assert not hidden.requires_grad
