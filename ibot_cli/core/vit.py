"""Vision transformer with a class token, a learned mask token and the authors' position interpolation.

Shapes: B images, C channels, R registers, N patches, T tokens, D width, h heads. Layers come from timm; parameter
names are timm's and the official checkpoints'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from ibot_cli.core.backbone import Backbone, BlockTokens, Crops, init_linear, wanted_rows
from ibot_cli.core.block import joined, run_block
from ibot_cli.core.drop_path import Branch, DropPath, SubBatches, plain_factors


class Size(NamedTuple):
    """Width, depth and heads of a named ViT."""

    width: int
    depth: int
    heads: int


SIZES = {
    "vit_tiny": Size(192, 12, 3),
    "vit_small": Size(384, 12, 6),
    "vit_base": Size(768, 12, 12),
    "vit_large": Size(1024, 24, 16),
}


class ViT(Backbone):
    """Pre-norm ViT: qkv bias, exact GELU, LayerNorm with epsilon 1e-6, learned positions.

    Registers are learned tokens without positions, between the class token and the patches; they take part in every
    block and in no output. Layer scale multiplies each residual branch by a learned factor per channel.

    Source:
        ViT (arXiv 2010.11929); initialisation and position interpolation as in the authors' iBOT code. Registers:
        Vision transformers need registers (arXiv 2309.16588), named and initialised as in DINOv2's code. Layer scale:
        Going deeper with image transformers (arXiv 2103.17239), named as in timm's and DINOv2's code.
    """

    has_class_token = True
    cls_token: nn.Parameter
    pos_embed: nn.Parameter
    register_tokens: nn.Parameter | None

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        mask_token: bool,
        registers: int = 0,
        layer_scale: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.num_blocks, self.heads = width, depth, heads
        self.image_size, self.channels, self.stride = image_size, channels, patch_size
        self.registers = registers
        self.run_block = run_block
        layers = VisionTransformer(
            img_size=image_size,
            patch_size=patch_size,
            in_chans=channels,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            init_values=layer_scale or None,
            norm_layer=lambda size, **kw: nn.LayerNorm(size, eps=1e-6, **kw),
            weight_init="skip",
        )
        self.cls_token, self.pos_embed = layers.cls_token, layers.pos_embed
        self.patch_embed, self.blocks, self.norm = layers.patch_embed, layers.blocks, layers.norm
        self.patch_embed.strict_img_size = False
        self.masked_embed = nn.Parameter(torch.zeros(1, width)) if mask_token else None
        self.register_tokens = nn.Parameter(torch.empty(1, registers, width)) if registers else None
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.apply(init_linear)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)

    def forward(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        drop_path: DropPath | None = None,
        patches: Tensor | None = None,
    ) -> Tensor:
        """See `Backbone.forward`."""
        return self.packed([Crops(images, mask, drop_path, patches)])[0]

    def together(self, crops: Sequence[Crops]) -> list[Tensor]:
        """See `Backbone.together`; a CPU, which waits for no launch of a kernel, takes one size after the other."""
        return super().together(crops) if crops[0].images.device.type == "cpu" else self.packed(crops)

    def packed(self, crops: Sequence[Crops]) -> list[Tensor]:
        """`together` through one pass, in which only the attention keeps images of different sizes apart."""
        tokens = [self._embed(c.images, c.mask) for c in crops]
        shapes = tuple((x.shape[0], x.shape[1]) for x in tokens)
        x, wanted = joined([t.flatten(0, 1) for t in tokens]), self._wanted(tokens, crops)
        factors = _factors(crops, shapes, self.num_blocks)
        for index, block in enumerate(self.blocks):
            last = index == self.num_blocks - 1
            x = self._block(block, x, shapes, factors[index], wanted if last else None)
        sizes = [b * t if c.patches is None else b + len(c.patches) for c, (b, t) in zip(crops, shapes, strict=True)]
        parts = zip(crops, shapes, x.split(sizes), strict=True)
        whole = [y if c.patches is not None else self._without_registers(y.unflatten(0, s)) for c, s, y in parts]
        return [self._norm(y) for y in whole]

    def intermediate(self, images: Tensor, num_blocks: int) -> list[Tensor]:
        """See `Backbone.intermediate`."""
        return [self._norm(x) for x in self._outputs(images, num_blocks)]

    def last_blocks(self, images: Tensor, num_blocks: int) -> list[BlockTokens]:
        """See `Backbone.last_blocks`."""
        outputs = self._outputs(images, num_blocks)
        normed = [self._norm(x) for x in outputs]
        return [BlockTokens(y[:, 0], y[:, 1:], x[:, 1:]) for x, y in zip(outputs, normed, strict=True)]

    def attention(self, images: Tensor, queries: Tensor) -> Tensor:
        """See `Backbone.attention`."""
        last, x = self.blocks[-1], self._embed(images, None)
        for block in self.blocks[:-1]:
            x = _alone(block, x)
        return attention_rows(last.attn, last.norm1(x), queries, 1 + self.registers)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Position embeddings `[1, 1 + rows * columns, D]`.

        The 0.1 that is added before the scale is computed shifts the sampling points; it is what the authors' (and
        DINO's) code does, so weights agree only with it.
        """
        native = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if (rows, columns) == (native, native):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, native, native, self.dim).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / native, (columns + 0.1) / native)
        resized = functional.interpolate(grid.float(), scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)

    def _outputs(self, images: Tensor, num_blocks: int) -> list[Tensor]:
        """What the last blocks give, before the final norm, by the very operations of `forward`."""
        x = self._embed(images, None)
        outputs: list[Tensor] = []
        for block in self.blocks:
            x = _alone(block, x)
            outputs = [*outputs, self._without_registers(x)][-num_blocks:]
        return outputs

    def _wanted(self, tokens: Sequence[Tensor], crops: Sequence[Crops]) -> Tensor | None:
        """Rows of the packed tokens that leave the last block, or None if all do."""
        if all(c.patches is None for c in crops):
            return None
        rows, start = [], 0
        for x, c in zip(tokens, crops, strict=True):
            stop = start + x.shape[0] * x.shape[1]
            every = torch.arange(start, stop, device=x.device)
            rows.append(every if c.patches is None else wanted_rows(x, c.patches, 1 + self.registers) + start)
            start = stop
        return torch.cat(rows)

    def _embed(self, images: Tensor, mask: Tensor | None) -> Tensor:
        rows, columns = (side // self.stride for side in images.shape[-2:])
        patches = self.patch_embed(images)
        if mask is not None:
            token = self._mask_token().to(patches.dtype)
            patches = torch.where(mask.unsqueeze(-1), token, patches)
        x = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1).to(patches.dtype), patches], dim=1)
        x = x + self.positions(rows, columns)
        if self.register_tokens is None:
            return x
        return torch.cat([x[:, :1], self.register_tokens.expand(x.shape[0], -1, -1).to(x.dtype), x[:, 1:]], dim=1)

    def _without_registers(self, x: Tensor) -> Tensor:
        """`[B, 1 + R + N, D]` to `[B, 1 + N, D]`."""
        return torch.cat([x[:, :1], x[:, 1 + self.registers :]], dim=1) if self.registers else x

    def _norm(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed


def attention_rows(layer: Attention, x: Tensor, queries: Tensor, prefix: int) -> Tensor:
    """Rows of an attention matrix, after softmax; see `Backbone.attention`.

    Args:
        layer: Of timm.
        x: Its input, `[B, P + N, D]`.
        queries: int64 `[Q]`: 0 is the first token, 1 + n patch n.
        prefix: P, tokens before the patches: the class token and registers.

    Returns:
        `[B, h, Q, 1 + N]`, each row with sum 1; column 0 is what falls on the tokens before the patches.
    """
    queries = torch.where(queries == 0, 0, queries + prefix - 1)
    query, key, _ = layer.qkv(x).unflatten(-1, (3, layer.num_heads, layer.head_dim)).permute(2, 0, 3, 1, 4)
    query, key = layer.q_norm(query[:, :, queries]), layer.k_norm(key)
    scores: Tensor = query @ key.transpose(-2, -1) * layer.scale
    return joined_prefix(scores.softmax(dim=-1), prefix)


def joined_prefix(rows: Tensor, prefix: int) -> Tensor:
    """Attention `[..., P + N]` as `[..., 1 + N]`: the first P columns, `prefix` of them, become their sum."""
    if prefix == 1:
        return rows
    return torch.cat([rows[..., :prefix].sum(dim=-1, keepdim=True), rows[..., prefix:]], dim=-1)


def _alone(block: Block, x: Tensor) -> Tensor:
    """A whole block for `[B, T, D]` without drop path, by the very operations of `ViT.forward`."""
    return run_block(block, x.flatten(0, 1), ((x.shape[0], x.shape[1]),)).view_as(x)


def _factors(
    crops: Sequence[Crops], shapes: tuple[tuple[int, int], ...], num_blocks: int
) -> Sequence[Tensor | tuple[Branch, Branch] | None]:
    """Drop-path factors of packed tokens, `[2, rows]` for each block; sub-batches where there is one size only."""
    dropped = [plain_factors(c.drop_path) for c in crops]
    found = [f.repeat_interleave(t, 2) for f, (_, t) in zip(dropped, shapes, strict=True) if f is not None]
    if not found:
        return [None] * num_blocks
    assert len(found) == len(crops), "drop path for all images or for none"
    factors, alone = torch.cat(found, dim=2).unbind(), crops[0]
    if len(crops) > 1 or not isinstance(alone.drop_path, SubBatches):
        return factors
    # Of the last block, which few tokens leave, there is little to spare.
    return alone.drop_path.branches if alone.patches is None else [*alone.drop_path.branches[:-1], factors[-1]]
