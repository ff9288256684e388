"""AdamW, its parameter groups, gradient clipping and the gate that skips bad steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

_EMBEDDING = r"cls_token|register_tokens|pos_embed|masked_embed|patch_embed\."  # what comes before the blocks


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


def layer_numbers(names: Sequence[str]) -> dict[str, int]:
    """The layer of each parameter of a network, for layer-wise learning rates.

    Args:
        names: Parameter names of a network with a `backbone`; a ViT's blocks are `blocks.N`, a Swin's
            `layers.STAGE.blocks.N`, counted through the stages.

    Returns:
        0 for tokens, positions and patch embedding, b + 1 for block b, and one more than the last block for the final
        norm and what follows it. A Swin's merging of patches goes with the block before it.

    Source:
        The fine-tuning code of BEiT (arXiv 2106.08254); for Swin that of SimMIM (arXiv 2111.09886).
    """
    depths: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}  # stage and block; -1 is before the stage's first block
    outside: dict[str, bool] = {}  # whether it comes before the blocks
    for name in names:
        if block := re.match(r"backbone\.(?:layers\.(\d+)\.)?blocks\.(\d+)\.", name):
            places[name] = stage, number = int(block[1] or 0), int(block[2])
            depths[stage] = max(depths.get(stage, 0), number + 1)
        elif merging := re.match(r"backbone\.layers\.(\d+)\.", name):
            places[name] = int(merging[1]), -1
        else:
            outside[name] = bool(re.match(rf"backbone\.({_EMBEDDING})", name))
    before = {stage: sum(depths[s] for s in depths if s < stage) for stage in depths}
    last = sum(depths.values()) + 1
    numbers = {name: before[stage] + number + 1 for name, (stage, number) in places.items()}
    return numbers | {name: 0 if early else last for name, early in outside.items()}


def layer_groups(network: nn.Module, decay: float, *, decay_tokens: bool = False) -> list[dict[str, object]]:
    """Groups by layer, each with `lr_scale`: decay to the power of the layers above it.

    Biases and one-dimensional tensors have no weight decay.

    Args:
        network: A network with a `backbone`; see `layer_numbers`.
        decay: Factor of the learning rate from one layer to the one below; 1 treats all alike.
        decay_tokens: Whether positions, class token and registers have weight decay: in pre-training, as in
            `parameter_groups`, not in fine-tuning.

    Source:
        BEiT (arXiv 2106.08254): `decay ** (L + 1 - layer)` for L blocks.
    """
    parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
    numbers = layer_numbers(list(parameters))
    last = max(numbers.values())
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    for name, value in parameters.items():
        token = not decay_tokens and name.endswith((".pos_embed", ".cls_token", ".register_tokens"))
        plain = token or name.endswith(".bias") or value.ndim == 1
        groups.setdefault((numbers[name], plain), []).append(value)
    return [
        {
            "params": members,
            "name": f"layer {layer} {'plain' if plain else 'decayed'}",
            "lr_scale": decay ** (last - layer),
            "weight_decay": 0.0,
        }
        for (layer, plain), members in sorted(groups.items(), key=lambda entry: entry[0])
    ]


def build_optimizer(
    network: nn.Module,
    *,
    betas: tuple[float, float],
    eps: float,
    layer_decay: float | None = None,
    decay_tokens: bool = False,
) -> torch.optim.AdamW:
    """Fused AdamW over `parameter_groups`, or over `layer_groups` with a `layer_decay`.

    Learning rate and decay are set before every step.
    """
    if layer_decay is None:
        groups = parameter_groups(network)
    else:
        groups = layer_groups(network, layer_decay, decay_tokens=decay_tokens)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)


def apply_schedule(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """Sets the learning rate of all groups, times their `lr_scale`, and the decay of those that are decayed."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
        if group["name"].endswith("decayed"):
            group["weight_decay"] = weight_decay


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], limit: float, mode: str, scale: Tensor | None = None) -> Tensor:
    """Scales gradients down to a norm of at most `limit`, without a host read.

    Args:
        parameters: Those without a gradient are skipped.
        limit: Largest norm; 0 changes nothing.
        mode: `tensor` clips each gradient by its own norm (the authors' way), `global` all by their common norm.
        scale: What the losses were multiplied with before the backward pass, a 0-dim tensor, or None. The gradients
            are divided by it in the same pass over memory that clips them.

    Returns:
        The common L2 norm before clipping and without `scale`, a 0-dim tensor; non-finite when any gradient is. Where
        squares of finite gradients leave float32, it is an upper bound, so that these are clipped like others.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    norms = torch.stack(torch._foreach_norm(grads))
    if limit > 0:
        norms = torch.where(norms.isinf(), _largest_norms(grads), norms)
    norms = norms if scale is None else norms / scale
    total: Tensor = torch.linalg.vector_norm(norms)
    if limit > 0:
        total = torch.where(total.isinf(), torch.linalg.vector_norm(norms, dtype=torch.float64).to(total.dtype), total)
        factors = (limit / ((norms if mode == "tensor" else total.expand(len(grads))) + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(grads, list((factors if scale is None else factors / scale).unbind()))
    elif scale is not None:
        torch._foreach_mul_(grads, 1 / scale)
    return total


def _largest_norms(grads: list[Tensor]) -> Tensor:
    """What the L2 norm of each gradient is at most: its L1 norm, whose sum stays within float32.

    A Swin needs it at first: its mask token begins as zeros, of which each layer norm makes the gradient a thousand
    times as large, and a window of nothing else lets it pass through a dozen of them.
    """
    return torch.stack(torch._foreach_norm(grads, 1))


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
