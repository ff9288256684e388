"""The backbones: what they share, how they are named, and how they are built.

Shapes: B images, C channels, N patches (tokens of the last stage), D token width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ibot_cli.core.drop_path import DropPath


class BlockTokens(NamedTuple):
    """What one block gives for evaluations; Swin's earlier stages have other N and D.

    Attributes:
        cls: `[B, D]`, the class token or what stands for it, after the final norm.
        patches: `[B, N, D]`, after the final norm.
        raw: `[B, N, D]`, the patch tokens before the final norm.
    """

    cls: Tensor
    patches: Tensor
    raw: Tensor


class Crops(NamedTuple):
    """Images of one size and what a backbone is to do with them; see `Backbone.forward`."""

    images: Tensor
    mask: Tensor | None = None
    drop_path: DropPath | None = None
    patches: Tensor | None = None


class Backbone(nn.Module, ABC):
    """A network from images to tokens, the class token (or what stands for it) first.

    Attributes:
        dim: D.
        num_blocks: Residual blocks; each has two branches with a drop-path factor.
        image_size: Side of the images it was built for, in pixels.
        stride: Pixels per output token and side.
        channels: C.
        masked_embed: The learned mask token, or None (the teacher has none).
        has_class_token: Whether token 0 takes part in the attention; Swin's is a mean of the others.
        checkpointing: Whether each block is computed again in the backward pass instead of keeping what it computed.
        run_block: The function of one block, without state of its own, so that a compiled form can take its place.
    """

    has_class_token: ClassVar[bool]
    dim: int
    num_blocks: int
    image_size: int
    stride: int
    channels: int
    masked_embed: nn.Parameter | None
    checkpointing: bool = False
    run_block: Callable[..., Tensor]

    @abstractmethod
    def forward(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        drop_path: DropPath | None = None,
        patches: Tensor | None = None,
    ) -> Tensor:
        """Tokens after the final norm.

        Args:
            images: `[B, C, H, W]`.
            mask: bool `[B, N]`; those patches are replaced by the mask token.
            drop_path: `[num_blocks, 2, B]` factors of the residual branches, also as sub-batches, or None.
            patches: int64 `[R]`, positions in the flattened `[B * N]`, if the caller needs the class tokens and these
                patches only; nothing is computed that serves no token but the others.

        Returns:
            `[B, 1 + N, D]`, or `[B + R, D]` with `patches`: all class tokens, then those patches.

        Raises:
            ValueError: If `mask` is given and there is no mask token.
        """

    def together(self, crops: Sequence[Crops]) -> list[Tensor]:
        """`[self(*c) for c in crops]` within float tolerance, by fewer and larger operations where that pays."""
        return [self(*c) for c in crops]

    @abstractmethod
    def intermediate(self, images: Tensor, num_blocks: int) -> list[Tensor]:
        """Tokens `[B, 1 + N', D']` of the last `num_blocks` blocks, oldest first, each through the final norm.

        Swin's earlier stages have other N' and D' and no norm of their own, as in the authors' code.
        """

    @abstractmethod
    def last_blocks(self, images: Tensor, num_blocks: int) -> list[BlockTokens]:
        """As `intermediate`, with the tokens before the final norm too; the last class token is bit for bit that of
        `forward`.
        """

    @abstractmethod
    def attention(self, images: Tensor, queries: Tensor) -> Tensor:
        """What some tokens attend to in the last block; no matrix of all tokens by all tokens is made.

        Args:
            images: `[B, C, H, W]`.
            queries: int64 `[Q]`, tokens: 0 is the class token, 1 + n patch n.

        Returns:
            `[B, h, Q, 1 + N]`, after softmax, each row with sum 1. Column 0 is what falls on no patch: on the class
            token and registers, or in Swin on the padding of its windows. A patch of Swin attends to its own window
            only.

        Raises:
            ValueError: Token 0 is asked for and there is no class token.
        """

    def _block(self, *inputs: object) -> Tensor:
        """`run_block`, checkpointed if asked for; drop-path factors are inputs, so there is no generator to restore."""
        if self.checkpointing and torch.is_grad_enabled():
            kept: Tensor = checkpoint(self.run_block, *inputs, use_reentrant=False, preserve_rng_state=False)
            return kept
        return self.run_block(*inputs)

    def _mask_token(self) -> Tensor:
        if self.masked_embed is None:
            raise ValueError("this backbone has no mask token")
        return self.masked_embed


def drop_path_factors(
    rate: float, num_blocks: int, num_views: int, num_images: int, generator: torch.Generator
) -> Tensor | None:
    """Stochastic-depth factors of one step: 0 for a dropped branch, `1 / keep` otherwise.

    Args:
        rate: Drop probability of the last block; linear from 0 at the first.
        num_blocks: Residual blocks.
        num_views: Views per image.
        num_images: Images of the global batch; each process takes its slice, so the draws do not depend on how the
            batch is shared out.
        generator: CPU generator of this step.

    Returns:
        float32 `[num_blocks, 2, num_views, num_images]`, or None when `rate` is 0.

    Source:
        Stochastic depth (arXiv 1603.09382), per sample and branch.
    """
    if rate == 0:
        return None
    keep = 1 - torch.linspace(0, rate, num_blocks).reshape(-1, 1, 1, 1)
    drawn = torch.rand(num_blocks, 2, num_views, num_images, generator=generator)
    return (drawn < keep).to(torch.float32) / keep


def wanted_rows(tokens: Tensor, patches: Tensor, prefix: int = 1) -> Tensor:
    """Rows of the class tokens, then of `patches`, in the flattened `tokens`.

    Args:
        tokens: `[B, P + N, ...]`, the class token first.
        patches: int64 `[R]`, positions in the flattened `[B * N]`.
        prefix: P, tokens before the patches.

    Returns:
        int64 `[B + R]`, positions in the flattened `[B * (P + N)]`.
    """
    num_images, num_tokens = tokens.shape[:2]
    cls = torch.arange(num_images, device=patches.device) * num_tokens
    return torch.cat([cls, patches + (patches // (num_tokens - prefix) + 1) * prefix])


def residual(x: Tensor, branch: Tensor, factor: Tensor | None) -> Tensor:
    """`x + factor * branch`, with one factor `[B]` per image."""
    if factor is None:
        return x + branch
    return torch.addcmul(x, branch, factor.reshape(-1, *[1] * (x.ndim - 1)).to(branch.dtype))


def init_linear(module: nn.Module) -> None:
    """The authors' initialisation: truncated normal 0.02 for linear layers, zero biases; convolutions keep torch's."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_backbone(
    *,
    arch: str,
    image_size: int,
    channels: int = 3,
    patch_size: int = 16,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    window_size: int = 7,
    mask_token: bool = False,
    registers: int = 0,
    layer_scale: float = 0.0,
) -> Backbone:
    """A ViT or Swin with fresh weights from the global generator.

    Args:
        arch: `vit_tiny|small|base|large` or `swin_tiny|small|base|large`.
        image_size: Side in pixels; positions and windows are laid out for it, other sizes work too.
        channels: C.
        patch_size: Side of a ViT's patch; Swin's is 4.
        width: Overrides a ViT's D.
        depth: Overrides a ViT's number of blocks.
        heads: Overrides a ViT's attention heads.
        window_size: Swin's attention window in tokens.
        mask_token: Whether there is a learned mask token (students need one).
        registers: Learned tokens of a ViT besides the class token, which no output holds.
        layer_scale: Initial value of a ViT's learned factors on the residual branches; 0 has none.

    Raises:
        KeyError: If `arch` is unknown.
    """
    # Imported here because each needs its part of timm and both need this module.
    from ibot_cli.core import swin, vit

    if arch in swin.SIZES:
        return swin.Swin(arch, image_size=image_size, channels=channels, window_size=window_size, mask_token=mask_token)
    size = vit.SIZES[arch]
    return vit.ViT(
        image_size=image_size,
        channels=channels,
        patch_size=patch_size,
        width=width or size.width,
        depth=depth or size.depth,
        heads=heads or size.heads,
        mask_token=mask_token,
        registers=registers,
        layer_scale=layer_scale,
    )
