"""AdamW, its parameter groups, gradient clipping and the gate that skips bad steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def parameter_groups(network: nn.Module) -> list[dict[str, object]]:
    """Two groups, `decayed` and `plain`: biases and one-dimensional tensors are not decayed, everything else is.

    Tokens, position embeddings and prototypes are decayed too, as in the authors' code; a trainable prototype norm
    is two-dimensional and therefore decayed as well.
    """
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, value in network.named_parameters():
        if value.requires_grad:
            (plain if name.endswith(".bias") or value.ndim == 1 else decayed).append(value)
    return [{"params": decayed, "name": "decayed"}, {"params": plain, "name": "plain", "weight_decay": 0.0}]


def build_optimizer(network: nn.Module, *, betas: tuple[float, float], eps: float) -> torch.optim.AdamW:
    """Fused AdamW over `parameter_groups`; learning rate and decay are set before every step."""
    return torch.optim.AdamW(parameter_groups(network), lr=0.0, betas=betas, eps=eps, fused=True)


def apply_schedule(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """Sets the learning rate of all groups and the decay of the first."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if group["name"] == "decayed":
            group["weight_decay"] = weight_decay


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], limit: float, mode: str) -> Tensor:
    """Scales gradients down to a norm of at most `limit`, without a host read.

    Args:
        parameters: Those without a gradient are skipped.
        limit: Largest norm; 0 changes nothing.
        mode: `tensor` clips each gradient by its own norm (the authors' way), `global` all by their common norm.

    Returns:
        The common L2 norm before clipping, a 0-dim tensor; non-finite when any gradient is.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    norms = torch._foreach_norm(grads)
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    if limit > 0:
        base = torch.stack(norms) if mode == "tensor" else total.expand(len(grads))
        scale = (limit / (base + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(grads, list(scale.unbind()))
    return total


def gated_step(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """One optimiser step that changes nothing, moments and step counts included, where `finite` is false.

    Args:
        optimizer: A fused optimiser; only those take the decision on the device.
        finite: 0-dim bool tensor on the parameters' device.
    """
    optimizer.found_inf = (~finite).to(torch.float32).reshape(())  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf, optimizer.grad_scale  # type: ignore[attr-defined]
