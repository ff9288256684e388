"""A backbone with a classifier on its pooled feature.

Shapes: B images, C classes, N patches, D token width, H size of a kept projection layer.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from ibot_cli.core.backbone import Backbone
from ibot_cli.core.drop_path import DropPath
from ibot_cli.core.heads import BatchNorm, Head
from ibot_cli.core.vit import ViT

Pooling = Literal["mean", "cls"]
INIT_STD = 0.02


class Classifier(nn.Module):
    """From images to class scores.

    With `mean` the patch tokens of a ViT are averaged before its final norm, which is discarded, and a new LayerNorm
    `fc_norm` follows; with `cls` the class token goes through the final norm. A Swin's pooled token (the mean of its
    normed tokens) serves both.

    Args:
        backbone: Becomes a part of the classifier; `mean` takes a ViT's final norm away.
        num_classes: C.
        pooling: `mean` or `cls`.
        head_init_scale: The head's weights are truncated normal with deviation 0.02, times this.
        projection: A layer `[B, D]` to `[B, H]` between feature and head, or None.

    Raises:
        ValueError: A projection with mean pooling; it was trained on class tokens.

    Source:
        BEiT (arXiv 2106.08254), fine-tuning code; iBOT (arXiv 2111.07832) uses it with `cls`, and a kept projection
        layer for semi-supervised learning.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        pooling: Pooling = "mean",
        head_init_scale: float = 0.001,
        projection: nn.Sequential | None = None,
    ) -> None:
        super().__init__()
        averages = pooling == "mean" and isinstance(backbone, ViT)
        if projection is not None and averages:
            raise ValueError("a projection layer is for class tokens, not for the mean of the patches")
        self.backbone, self.pooling = backbone, pooling
        self.fc_norm = nn.LayerNorm(backbone.dim, eps=1e-6) if averages else None
        if averages:
            backbone.norm = nn.Identity()
        self.projection = projection
        size = backbone.dim if projection is None else _linear(projection[0]).out_features
        self.head = nn.Linear(size, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=INIT_STD)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.head.weight.mul_(head_init_scale)

    def features(self, images: Tensor, drop_path: DropPath | None = None) -> Tensor:
        """What the head (or the projection) sees: `[B, C, H, W]` to `[B, D]`.

        Args:
            images: Normalised images.
            drop_path: `[num_blocks, 2, B]` factors of the residual branches, also as sub-batches, or None.
        """
        if self.fc_norm is not None:
            pooled: Tensor = self.fc_norm(self.backbone(images, drop_path=drop_path)[:, 1:].mean(dim=1))
            return pooled
        no_patch = torch.empty(0, dtype=torch.int64, device=images.device)
        tokens: Tensor = self.backbone(images, drop_path=drop_path, patches=no_patch)
        return tokens

    def forward(self, images: Tensor, drop_path: DropPath | None = None) -> Tensor:
        """Class scores before the softmax, `[B, C]`; see `features`."""
        features = self.features(images, drop_path)
        logits: Tensor = self.head(features if self.projection is None else self.projection(features))
        return logits

    def token_backbone(self) -> Backbone:
        """The backbone as evaluations use it, with the same parameters: token 0 is what the classifier sees.

        After mean pooling the class token itself was not trained, so the normed mean of the patches stands for it.
        """
        if self.fc_norm is None:
            return self.backbone
        twin = copy.copy(self.backbone)
        twin._modules = {**self.backbone._modules, "norm": PooledNorm(self.fc_norm)}
        return twin


class PooledNorm(nn.Module):
    """A final norm that puts the normed mean of the patches in the place of the class token.

    Args:
        norm: The norm of the mean; the patches go through it too.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, 1 + N, D]` to the same."""
        patches = tokens[:, 1:]
        normed: Tensor = self.norm(torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1))
        return normed


def projection_layer(size: int, hidden_size: int, activation: str) -> nn.Sequential:
    """A fresh layer of the shape that `kept_projection` gives: `[B, size]` to `[B, hidden_size]`."""
    layer = nn.Linear(size, hidden_size)
    nn.init.trunc_normal_(layer.weight, std=INIT_STD)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, nn.GELU() if activation == "gelu" else nn.ReLU())


@torch.no_grad()
def kept_projection(head: Head) -> nn.Sequential:
    """The first layer of a projection head with its activation, as a copy.

    A batch normalisation between them is folded into the layer with its running statistics.

    Raises:
        ValueError: The head has one layer only, which leads into the bottleneck without an activation.

    Source:
        `--finetune_head_layer 1` of the authors' semi-supervised code (iBOT, arXiv 2111.07832).
    """
    first, *rest = head.mlp
    first = _linear(first)
    if not rest:
        raise ValueError("the projection head has a single layer, which no activation follows")
    activation = next(layer for layer in rest if isinstance(layer, nn.GELU | nn.ReLU))
    kind = "gelu" if isinstance(activation, nn.GELU) else "relu"
    kept = projection_layer(first.in_features, first.out_features, kind)
    layer = _linear(kept[0])
    weight: Tensor = first.weight
    bias: Tensor = first.bias
    norm = rest[0]
    if isinstance(norm, BatchNorm):
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight, bias = weight * scale[:, None], (bias - norm.running_mean) * scale + norm.bias
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return kept


def _linear(module: nn.Module) -> nn.Linear:
    """The module, which is known to be a linear layer."""
    assert isinstance(module, nn.Linear)
    return module
