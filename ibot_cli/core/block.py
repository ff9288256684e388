"""One block of a ViT, on the tokens of images of several sizes, or without the images that drop a branch.

Shapes: B images and T tokens of one size, D width; rows are tokens of all images, one after the other.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor

from ibot_cli.core.attention import attend_qkv
from ibot_cli.core.backbone import residual
from ibot_cli.core.drop_path import Branch, add_branch
from ibot_cli.core.linear import norm_linear, norm_mlp


def run_block(
    block: Block,
    x: Tensor,
    shapes: tuple[tuple[int, int], ...],
    factors: Tensor | tuple[Branch, Branch] | None = None,
    wanted: Tensor | None = None,
) -> Tensor:
    """One block on the packed tokens of images of several sizes.

    Args:
        block: Of timm.
        x: `[rows, D]`, for each size the tokens of its images, one after the other.
        shapes: B and T of each size; the rows are the sum of B * T.
        factors: `[2, rows]`, of the two residual branches; or, for images of one size that all go on, the images
            that these are computed for; or None.
        wanted: int64, the rows to go on with after the attention, where no token sees another one any more; None
            for all.

    Returns:
        `[rows, D]`, or as many rows as are wanted.
    """
    if isinstance(factors, tuple):
        assert wanted is None, "sub-batches are for blocks that all tokens leave"
        return _run_sub_batches(block, x, shapes[0], factors)
    proj, heads = block.attn.proj, _attend(block, x, shapes)
    if wanted is None:
        # Joined after the projection, which keeps its input: joining before it would keep another copy.
        branch = joined([proj(part) for part in heads])
    else:
        x, branch = x.index_select(0, wanted), proj(joined(heads).index_select(0, wanted))
        factors = None if factors is None else factors.index_select(1, wanted)
    attn, mlp = (None, None) if factors is None else factors.unbind()
    x = residual(x, block.ls1(branch), attn)
    return residual(x, block.ls2(norm_mlp(x, block.norm2, block.mlp)), mlp)


def _run_sub_batches(block: Block, x: Tensor, shape: tuple[int, int], branches: tuple[Branch, Branch]) -> Tensor:
    """`run_block` for images of one size, each branch without the images that drop it."""
    (attn, mlp), (_, tokens), images = branches, shape, x.unflatten(0, shape)
    kept = images.index_select(0, attn.images).flatten(0, 1)
    (heads,) = _attend(block, kept, ((len(attn.images), tokens),))
    images = add_branch(images, block.ls1(block.attn.proj(heads)).unflatten(0, (-1, tokens)), attn)
    kept = images.index_select(0, mlp.images)
    return add_branch(images, block.ls2(norm_mlp(kept, block.norm2, block.mlp)), mlp).flatten(0, 1)


def _attend(block: Block, x: Tensor, shapes: tuple[tuple[int, int], ...]) -> list[Tensor]:
    """Norm and attention of packed tokens up to the output projection, `[B * T, D]` of each size."""
    layer = block.attn
    qkv = norm_linear(x, block.norm1, layer.qkv).unflatten(-1, (3, layer.num_heads, layer.head_dim))
    parts = qkv.split([images * tokens for images, tokens in shapes])
    return [attend_qkv(part.unflatten(0, shape)).flatten(0, 1) for part, shape in zip(parts, shapes, strict=True)]


def joined(parts: list[Tensor]) -> Tensor:
    """Rows of several sizes one after the other; those of one are not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
