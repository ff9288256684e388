"""Swin transformer whose pooled tokens stand for the class token.

Shapes: B images, C channels, N tokens of the last stage (stride 32), D width of the last stage. Layers come from
timm.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.models.swin_transformer import (
    SwinTransformer,
    SwinTransformerBlock,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn
from torch.nn import functional

from ibot_cli.core.attention import attend_qkv
from ibot_cli.core.backbone import Backbone, BlockTokens, init_linear, residual, wanted_rows
from ibot_cli.core.drop_path import DropPath, plain_factors
from ibot_cli.core.linear import norm_mlp


class Size(NamedTuple):
    """Width of the stem, blocks and heads per stage of a named Swin."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]


SIZES = {
    "swin_tiny": Size(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_small": Size(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin_base": Size(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin_large": Size(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
PATCH_SIZE = 4
STRIDE = PATCH_SIZE * 8


class Swin(Backbone):
    """Swin with the authors' conventions: mask per output token, mean of the normed tokens as token 0.

    Source:
        Swin (arXiv 2103.14030); masking and pooling as in the authors' iBOT code. Relative position biases are
        decayed like every matrix, as there.
    """

    has_class_token = False

    def __init__(self, arch: str, *, image_size: int, channels: int, window_size: int, mask_token: bool) -> None:
        super().__init__()
        size = SIZES[arch]
        layers = SwinTransformer(
            img_size=image_size,
            patch_size=PATCH_SIZE,
            in_chans=channels,
            num_classes=0,
            embed_dim=size.width,
            depths=size.depths,
            num_heads=size.heads,
            window_size=window_size,
            strict_img_size=False,
            drop_path_rate=0.0,
            norm_layer=lambda width, **kw: nn.LayerNorm(width, eps=1e-6, **kw),
            weight_init="skip",
        )
        self.patch_embed, self.layers, self.norm = layers.patch_embed, layers.layers, layers.norm
        self.run_block = run_block
        self.dim, self.num_blocks = size.width * 8, sum(size.depths)
        self.image_size, self.channels, self.stride = image_size, channels, STRIDE
        self.masked_embed = nn.Parameter(torch.zeros(1, size.width)) if mask_token else None
        self.apply(init_linear)

    def forward(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        drop_path: DropPath | None = None,
        patches: Tensor | None = None,
    ) -> Tensor:
        """See `Backbone.forward`."""
        x, factors = self._embed(images, mask), plain_factors(drop_path)
        index = 0
        for stage in self.layers:
            x = stage.downsample(x)
            for block in stage.blocks:
                x = self._block(block, x, None if factors is None else factors[index])
                index += 1
        tokens = _with_average(self.norm(x))
        return tokens if patches is None else tokens.flatten(0, 1).index_select(0, wanted_rows(tokens, patches))

    def intermediate(self, images: Tensor, num_blocks: int) -> list[Tensor]:
        """See `Backbone.intermediate`."""
        return [_with_average(normed) for _, normed in self._outputs(images, num_blocks)]

    def last_blocks(self, images: Tensor, num_blocks: int) -> list[BlockTokens]:
        """See `Backbone.last_blocks`."""
        outputs = [(x.flatten(1, 2), normed.flatten(1, 2)) for x, normed in self._outputs(images, num_blocks)]
        return [BlockTokens(normed.mean(dim=1), normed, x) for x, normed in outputs]

    def attention(self, images: Tensor, queries: Tensor) -> Tensor:
        """See `Backbone.attention`."""
        if (queries == 0).any():
            raise ValueError("Swin has no class token; ask for patches")
        x = self._embed(images, None)
        last = self.layers[-1].blocks[-1]
        for stage in self.layers:
            x = stage.downsample(x)
            for block in stage.blocks:
                x = x if block is last else run_block(block, x)
        return _window_rows(last, x, queries - 1)

    def _outputs(self, images: Tensor, num_blocks: int) -> list[tuple[Tensor, Tensor]]:
        """What the last blocks give, `[B, H, W, D]`, before and after the final norm, which is the last stage's."""
        x = self._embed(images, None)
        outputs: list[tuple[Tensor, Tensor]] = []
        for stage in self.layers:
            x = stage.downsample(x)
            for block in stage.blocks:
                x = run_block(block, x)
                normed = self.norm(x) if stage is self.layers[-1] else x
                outputs = [*outputs, (x, normed)][-num_blocks:]
        return outputs

    def _embed(self, images: Tensor, mask: Tensor | None) -> Tensor:
        x: Tensor = self.patch_embed(images)
        if mask is None:
            return x
        side = images.shape[-1] // self.stride
        fine = mask.reshape(-1, images.shape[-2] // self.stride, side)
        fine = fine.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2).unsqueeze(-1)
        return torch.where(fine, self._mask_token().to(x.dtype), x)


def run_block(block: SwinTransformerBlock, x: Tensor, factors: Tensor | None = None) -> Tensor:
    """One block.

    Args:
        block: Of timm.
        x: `[B, H, W, D]`.
        factors: `[2, B]`, of the two residual branches, or None.
    """
    attn, mlp = (None, None) if factors is None else factors.unbind()
    x = residual(x, _attend(block, x), attn)
    return residual(x, norm_mlp(x, block.norm2, block.mlp), mlp)


def _attend(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """The attention branch on `[B, H, W, D]`.

    The map is padded to whole windows before the cyclic shift, as in the authors' code; timm shifts first and so lets
    the tokens that wrap around the border see the padding.
    """
    layer, (rows, columns) = block.attn, x.shape[1:3]
    padded = _padded(block, block.norm1(x))
    qkv = layer.qkv(_windows(block, padded)).unflatten(-1, (3, layer.num_heads, -1))
    branch = layer.proj(attend_qkv(qkv, _bias(block, padded)))
    height, width = padded.shape[1:3]
    whole = window_reverse(branch.unflatten(-2, block.window_size).flatten(0, 1), block.window_size, height, width)
    moved: Tensor = torch.roll(whole, block.shift_size, dims=(1, 2)) if any(block.shift_size) else whole
    return moved[:, :rows, :columns]


def _bias(block: SwinTransformerBlock, padded: Tensor) -> Tensor:
    """What is added to the scores, `[1 or windows, h, T, T]`.

    Tokens that the cyclic shift has brought together do not see each other at all. The authors lower their scores by
    100, which leaves weights that float32 holds as subnormal numbers only: products with those take up to four times
    as long on a CPU.
    """
    bias: Tensor = block.attn._get_rel_pos_bias()
    mask = block.get_attn_mask(padded)
    if mask is None:
        return bias
    return bias.masked_fill(mask.unsqueeze(1) != 0, float("-inf"))


def _padded(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """`[B, H, W, D]` with zeros below and to the right, up to whole windows."""
    rows, columns = x.shape[1:3]
    window = block.window_size[0]
    return functional.pad(x, (0, 0, 0, -columns % window, 0, -rows % window))


def _window_rows(block: SwinTransformerBlock, x: Tensor, queries: Tensor) -> Tensor:
    """Attention of the tokens `queries` of `[B, H, W, D]`: `[B, h, Q, 1 + N]`, the windows' padding in column 0."""
    layer, num_tokens = block.attn, x.shape[1] * x.shape[2]
    numbers = torch.arange(1, num_tokens + 1, device=x.device).reshape(1, *x.shape[1:3], 1)
    columns = _windows(block, _padded(block, numbers))[0, ..., 0]
    place = (columns.flatten() == queries[:, None] + 1).int().argmax(dim=1)
    window, row = place // block.window_area, place % block.window_area
    padded = _padded(block, block.norm1(x))
    windows = _windows(block, padded)
    tokens = layer.qkv(windows[:, window]).unflatten(-1, (3, layer.num_heads, -1))
    query, key, _ = tokens.unbind(3)
    query = query[:, torch.arange(len(queries), device=x.device), row]
    bias = _bias(block, padded).expand(windows.shape[1], -1, -1, -1)[window, :, row].transpose(0, 1)
    weights = (torch.einsum("bqhd,bqahd->bhqa", query, key) * layer.scale + bias).softmax(dim=-1)
    rows: Tensor = weights.new_zeros(*weights.shape[:-1], 1 + num_tokens)
    return rows.scatter_add(-1, columns[window].expand_as(weights), weights)


def _windows(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """Padded `[B, H, W, D]` to `[B, windows, tokens, D]`, shifted as the block does it."""
    shift_rows, shift_columns = block.shift_size
    moved = torch.roll(x, (-shift_rows, -shift_columns), dims=(1, 2))
    parts: Tensor = window_partition(moved, block.window_size)
    return parts.reshape(len(x), -1, block.window_area, x.shape[-1])


def _with_average(x: Tensor) -> Tensor:
    """`[B, H, W, D]` to `[B, 1 + H * W, D]`, the mean of the tokens first."""
    tokens = x.flatten(1, 2)
    return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
