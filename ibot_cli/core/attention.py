"""Multi-head self-attention, by the way that is fastest on the device at hand.

Shapes: T tokens that see each other, h heads, d width of a head; leading axes are images, and windows of a Swin.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ibot_cli.core.linear import without_autocast


def attend_qkv(qkv: Tensor, bias: Tensor | None = None) -> Tensor:
    """Self-attention from queries, keys and values.

    For training on a CPU the products are written out where torch's own kernel is slow there: its backward pass in
    half precision takes more than twice as long, and one with a bias is no kernel at all.

    Args:
        qkv: `[..., T, 3, h, d]`, computed in its own type whatever the autocast.
        bias: Added to the scores, broadcastable to `[..., h, T, T]`.

    Returns:
        `[..., T, h * d]`, in the type of `qkv`.
    """
    query, key, value = (part.transpose(-3, -2) for part in qkv.unbind(-3))
    bias = None if bias is None else bias.to(qkv.dtype)
    with without_autocast(qkv.device):
        if qkv.device.type == "cpu" and qkv.requires_grad and (bias is not None or qkv.element_size() < 4):
            out = _written_out(query, key, value, bias)
        else:
            out = _by_kernel(query, key, value, bias)
    return out.transpose(-3, -2).flatten(-2)


def _written_out(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    scores: Tensor = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
    return (scores if bias is None else scores + bias).softmax(dim=-1) @ value


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """The fused kernels take four axes, and a bias with all of them."""
    shape = query.shape
    if bias is not None:
        bias = bias.expand(*shape[:-1], shape[-2]).flatten(0, -4)
    query, key, value = (part.flatten(0, -4) for part in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias).view(shape)
