"""Models of the timm library as backbones."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from timm.layers import Attention
from timm.models.beit import Attention as BeitAttention
from torch import Tensor, nn

from ibot_cli.core.backbone import BlockTokens
from ibot_cli.core.vit import attention_rows, joined_prefix
from ibot_cli.errors import WeightsError


class TimmBackbone(nn.Module):
    """A timm model that answers like `ibot_cli.core.backbone.Backbone`: tokens `[B, 1 + N, D]`, class token first.

    A model without class token gives its pooled feature there, and no other tokens.

    Attributes:
        stride: Pixels per patch and side of what `last_blocks` gives; None where that is no grid of square patches.
    """

    def __init__(self, model: Any) -> None:  # timm's models share methods, but no type that declares them
        super().__init__()
        self.model = model
        self.dim = int(model.num_features)
        self.num_blocks = _num_blocks(model)
        self.stride = _stride(model) if self.num_blocks else None

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, 1 + N, D]`."""
        tokens: Tensor = self.model.forward_features(images)
        if tokens.ndim == 3 and self.has_class_token:
            return torch.cat([tokens[:, :1], tokens[:, self._num_prefix :]], dim=1)
        return self._pooled(tokens).unsqueeze(1)

    def last_blocks(self, images: Tensor, num_blocks: int) -> list[BlockTokens]:
        """The last blocks, oldest first; see `ibot_cli.core.backbone.Backbone.last_blocks`.

        Where the class token is not what the model pools, the mean of a block's normed patches stands for it, and the
        model's own pooling in the last block.

        Raises:
            WeightsError: timm does not give the blocks of this model.
        """
        if self.num_blocks == 0:
            raise WeightsError(f"timm gives no blocks of {type(self.model).__name__}, only its pooled feature.")
        prefix = self._num_prefix > 0
        final, found = self.model.forward_intermediates(
            images, indices=num_blocks, return_prefix_tokens=prefix, norm=False, output_fmt="NLC"
        )
        raw = [torch.cat([block[1], block[0]], dim=1) for block in found] if prefix else found
        normed = [*(self.model.norm(tokens) for tokens in raw[:-1]), final]
        blocks = [(x[:, self._num_prefix :], y[:, self._num_prefix :], y) for x, y in zip(raw, normed, strict=True)]
        earlier = [
            BlockTokens(y[:, 0] if self.has_class_token else patches.mean(dim=1), patches, x)
            for x, patches, y in blocks[:-1]
        ]
        return [*earlier, BlockTokens(self._pooled(final), blocks[-1][1], blocks[-1][0])]

    @property
    def heads(self) -> int | None:
        """Heads of the last block's attention; None where timm's layer is not the plain one, see `attention`."""
        layer = self._last_attention
        return None if layer is None else layer.num_heads

    def attention(self, images: Tensor, queries: Tensor) -> Tensor:
        """As `ibot_cli.core.backbone.Backbone.attention`; what falls on registers is in column 0 too.

        Raises:
            WeightsError: The last block's attention is of another kind than ViT's.
            ValueError: Token 0 is asked for and there is no class token that the model pools.
        """
        layer = self._last_attention
        if layer is None:
            raise WeightsError(
                f"The attention of {type(self.model).__name__} is of a kind that cannot be read from it.",
                "Plain vision transformers of timm and its BEiT can be shown.",
            )
        if not self.has_class_token and (queries == 0).any():
            raise ValueError(f"{type(self.model).__name__} has no class token; ask for patches")
        inputs: list[tuple[Tensor, Tensor | None]] = []
        with layer.register_forward_pre_hook(
            lambda _, given, named: inputs.append((given[0], named.get("shared_rel_pos_bias"))), with_kwargs=True
        ):
            self.model.forward_features(images)
        tokens, shared_bias = inputs[0]
        if isinstance(layer, BeitAttention):
            return _beit_rows(layer, tokens, shared_bias, queries, self._num_prefix)
        return attention_rows(layer, tokens, queries, self._num_prefix)

    @property
    def has_class_token(self) -> bool:
        """Whether there is a class token, and it is what the model pools."""
        return self._num_prefix > 0 and getattr(self.model, "global_pool", "") == "token"

    @property
    def _last_attention(self) -> Attention | BeitAttention | None:
        layer = getattr(self.model.blocks[-1], "attn", None) if self.num_blocks else None
        return layer if isinstance(layer, Attention | BeitAttention) else None

    @property
    def _num_prefix(self) -> int:
        return int(getattr(self.model, "num_prefix_tokens", 0))

    def _pooled(self, tokens: Tensor) -> Tensor:
        """`[B, D]` from what `forward_features` gives."""
        if self.has_class_token and tokens.ndim == 3:
            return tokens[:, 0]
        pooled: Tensor = self.model.forward_head(tokens, pre_logits=True)
        return pooled


def _beit_rows(layer: BeitAttention, x: Tensor, shared_bias: Tensor | None, queries: Tensor, prefix: int) -> Tensor:
    """As `attention_rows`, with the relative position bias of the layer, of all layers, or none."""
    wanted = torch.where(queries == 0, 0, queries + prefix - 1)
    query, key, _ = layer.qkv(x).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    if layer.q_bias is not None:  # the bias of the keys is always zero
        query = query + layer.q_bias.reshape(layer.num_heads, 1, -1)
    scores = query[:, :, wanted] @ key.transpose(-2, -1) * layer.scale
    if layer.relative_position_bias_table is not None:
        scores = scores + layer._get_rel_pos_bias()[:, :, wanted]
    if shared_bias is not None:
        scores = scores + shared_bias[..., wanted, :]
    return joined_prefix(scores.softmax(dim=-1), prefix)


def _num_blocks(model: Any) -> int:
    """Blocks whose tokens timm gives, each after the other at the same resolution; else 0."""
    if not hasattr(model, "blocks") or not hasattr(model, "norm") or not hasattr(model, "forward_intermediates"):
        return 0
    known = {"return_prefix_tokens", "norm", "output_fmt"} <= inspect.signature(
        model.forward_intermediates
    ).parameters.keys()
    return len(model.blocks) if known else 0


def _stride(model: Any) -> int | None:
    """Image pixels per patch and side, also behind a convolutional stem; None without a square grid."""
    embed = getattr(model, "patch_embed", None)
    size, grid = getattr(embed, "img_size", None), getattr(embed, "grid_size", None)
    if not size or not grid or size[0] != size[1] or grid[0] != grid[1] or size[0] % grid[0]:
        return None
    return int(size[0] // grid[0])
