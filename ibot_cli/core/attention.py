"""Multi-head self-attention, by the way that is fastest on the device at hand.

Shapes: B images, T tokens, D width, h heads, d width of a head.
"""

from __future__ import annotations

import torch
from timm.layers import Attention
from torch import Tensor
from torch.nn import functional


def attend(layer: Attention, x: Tensor) -> Tensor:
    """Self-attention up to its output projection.

    Args:
        layer: Of timm, without query and key norms.
        x: Its input, `[B, T, D]`.

    Returns:
        `[B, T, h * d]`.
    """
    return attend_qkv(layer.qkv(x).unflatten(-1, (3, layer.num_heads, layer.head_dim)))


def attend_qkv(qkv: Tensor) -> Tensor:
    """Self-attention from queries, keys and values.

    In half precision with a gradient on a CPU the products are written out: the backward pass of torch's own kernel
    takes more than twice as long there.

    Args:
        qkv: `[B, T, 3, h, d]`, computed in its own type whatever the autocast.

    Returns:
        `[B, T, h * d]`, in the type of `qkv`.
    """
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    with torch.autocast(qkv.device.type, enabled=False):
        if qkv.device.type == "cpu" and qkv.requires_grad and qkv.element_size() < 4:
            scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
            out = scores.softmax(dim=-1) @ value
        else:
            out = functional.scaled_dot_product_attention(query, key, value)
    return out.transpose(1, 2).flatten(2)
