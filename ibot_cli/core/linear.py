"""A block's linear layers, keeping nothing for the backward pass that is cheap to make again.

Torch keeps the input of every layer: of a transformer's MLP four tensors, two of them four times as wide as its tokens.
Here the outputs of layer norm and GELU are made again from their inputs, which are kept anyway. Every operation is
torch's own on the same numbers, so values and gradients are those of the plain layers.

Shapes: D width before a layer, E width after it; leading axes are rows.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class Mlp(Protocol):
    """What is used of timm's MLP; its dropout and its norm are off in every network here."""

    fc1: nn.Linear
    fc2: nn.Linear
    act: nn.GELU


def norm_mlp(x: Tensor, norm: nn.LayerNorm, mlp: Mlp) -> Tensor:
    """`fc2(GELU(fc1(norm(x))))`, `[..., D]` to `[..., D]`."""
    return gelu_linear(norm_linear(x, norm, mlp.fc1), mlp.act, mlp.fc2)


def norm_linear(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """`linear(norm(x))`, in the type of the products under autocast.

    Args:
        x: `[..., D]`.
        norm: With gain and shift.
        linear: With a bias.

    Returns:
        `[..., E]`; the norm's output is not kept.
    """
    if _plain(x):
        normed: Tensor = linear(norm(x))
        return normed
    out: Tensor = _NormLinear.apply(x, norm.weight, norm.bias, linear.weight, linear.bias, norm.eps, _product_type(x))
    return out


def gelu_linear(x: Tensor, act: nn.GELU, linear: nn.Linear) -> Tensor:
    """`linear(act(x))`, in the type of the products under autocast.

    Args:
        x: `[..., D]`, what the activation is applied to.
        act: Exact or approximate.
        linear: With a bias.

    Returns:
        `[..., E]`; the activation's output is not kept.
    """
    if _plain(x):
        activated: Tensor = linear(act(x))
        return activated
    out: Tensor = _GeluLinear.apply(x, linear.weight, linear.bias, act.approximate, _product_type(x))
    return out


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A part whose products are computed in the type of their inputs; the meta device knows no autocast."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _plain(x: Tensor) -> bool:
    """Whether torch's own layers do better.

    Without a backward pass nothing is kept, and a compiler decides by itself what to make again. On a CPU making
    things again takes 5 to 8 % of the step, and memory is what it has.
    """
    return not torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type == "cpu"


def _product_type(x: Tensor) -> torch.dtype:
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        with without_autocast(x.device):
            x, used = x.to(gain.dtype), weight.to(dtype)
            y, mean, rstd = torch.native_layer_norm(x, gain.shape, gain, shift, eps)
            ctx.save_for_backward(x, mean, rstd, gain, shift, used)
            ctx.eps, ctx.dtype = eps, weight.dtype
            return functional.linear(y.to(dtype), used, bias.to(dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, gain, shift, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        with without_autocast(x.device):
            of_weight = of_bias = None
            if needs[3]:
                y = torch.native_layer_norm(x, gain.shape, gain, shift, ctx.eps)[0].to(weight.dtype)
                of_weight = _weight_gradient(grad, y).to(ctx.dtype)
            if needs[4]:
                of_bias = grad.flatten(0, -2).sum(0).to(ctx.dtype)
            before = torch.ops.aten.native_layer_norm_backward(
                (grad @ weight).to(x.dtype), x, gain.shape, mean, rstd, gain, shift, list(needs[:3])
            )
        return *before, of_weight, of_bias, None, None


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, approximate: str, dtype: torch.dtype) -> Tensor:
        with without_autocast(x.device):
            used = weight.to(dtype)
            ctx.save_for_backward(x, used)
            ctx.approximate, ctx.dtype = approximate, weight.dtype
            return functional.linear(functional.gelu(x, approximate=approximate).to(dtype), used, bias.to(dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        of_x = of_weight = of_bias = None
        with without_autocast(x.device):
            if needs[1]:
                y = functional.gelu(x, approximate=ctx.approximate).to(weight.dtype)
                of_weight = _weight_gradient(grad, y).to(ctx.dtype)
                del y
            if needs[2]:
                of_bias = grad.flatten(0, -2).sum(0).to(ctx.dtype)
            if needs[0]:
                of_x = (grad @ weight).to(x.dtype)
                torch.ops.aten.gelu_backward(of_x, x, approximate=ctx.approximate, grad_input=of_x)
        return of_x, of_weight, of_bias, None, None


def _weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """`[E, D]` from `[..., E]` and `[..., D]`."""
    return grad.flatten(0, -2).t() @ x.flatten(0, -2)
