"""Pretrained models of the timm library as backbones."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ibot_cli.errors import WeightsError


class TimmBackbone(nn.Module):
    """A timm model that answers like `ibot_cli.core.backbone.Backbone`: tokens `[B, 1 + N, D]`, class token first.

    A model without class token gives its pooled feature there, and no other tokens.
    """

    def __init__(self, model: Any) -> None:  # timm's models share methods, but no type that declares them
        super().__init__()
        self.model = model
        self.dim = int(model.num_features)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, 1 + N, D]`."""
        tokens: Tensor = self.model.forward_features(images)
        prefix = getattr(self.model, "num_prefix_tokens", 0)
        if tokens.ndim == 3 and prefix > 0 and getattr(self.model, "global_pool", "") == "token":
            return torch.cat([tokens[:, :1], tokens[:, prefix:]], dim=1)
        pooled: Tensor = self.model.forward_head(tokens, pre_logits=True)
        return pooled.unsqueeze(1)


@dataclass(frozen=True)
class TimmModel:
    """A backbone and how its images are prepared."""

    backbone: TimmBackbone
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_ratio: float


def load_timm(name: str, *, pretrained: bool = True) -> TimmModel:
    """Build `timm.create_model(name)`; pretrained weights come from timm's cache or the network.

    Raises:
        WeightsError: No such model, or its weights cannot be had.
    """
    base = name.partition(".")[0]
    if not name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and not timm.is_model(base):
        close = difflib.get_close_matches(base, timm.list_models(), n=3)
        raise WeightsError(
            f"timm has no model {name!r}.",
            f"Did you mean {' or '.join(close)}?" if close else "`timm.list_models()` lists them.",
        )
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # whatever the network, the hub or timm itself raises, the user can do the same
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"timm cannot load {name!r}: {reason}",
            "Check the name's tag and the network; pretrained weights are downloaded once and cached.",
        ) from error
    settings = model.pretrained_cfg
    channels, image_size, _ = settings["input_size"]
    return TimmModel(
        TimmBackbone(model),
        channels,
        image_size,
        tuple(settings["mean"]),
        tuple(settings["std"]),
        float(settings.get("crop_pct") or 0.875),
    )
