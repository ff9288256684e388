"""Attention of the last block and patch features of one image.

Shapes: Q queries, h heads, D token width; rows and columns are those of the image's patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from ibot_cli.core.backbone import Backbone
from ibot_cli.core.classifier import PooledNorm
from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.evaluate.precision import exact_float32
from ibot_cli.visualize.whole_image import WholeImage
from ibot_cli.weights.load import LoadedBackbone
from ibot_cli.weights.timm_models import TimmBackbone

CLS: Final = "cls"
Query = Literal["cls"] | tuple[int, int]  # or the row and column of a patch


def attention_maps(
    loaded: LoadedBackbone, whole: WholeImage, queries: Sequence[Query], device: torch.device | str = "cpu"
) -> Tensor:
    """What some tokens attend to in the last block, after softmax.

    Args:
        loaded: The network; it is moved to `device`.
        whole: From `whole_image`, with the same network.
        queries: At least one.
        device: Where to compute.

    Returns:
        float32 `[Q, h, rows, columns]` on the CPU. The sum over the patches is 1, less what falls on no patch: on the
        class token and registers (in Swin: on the padding of its windows).

    Raises:
        UsageError: The class token is asked for and the network has none.
        WeightsError: The network's attention cannot be read.
    """
    check_attention(loaded, queries)
    rows, columns = whole.grid
    tokens = [0 if query == CLS else 1 + query[0] * columns + query[1] for query in queries]
    backbone, device = _backbone(loaded), torch.device(device)
    with exact_float32(device):
        found = backbone.to(device).attention(whole.pixels[None].to(device), torch.tensor(tokens, device=device))
    on_patches = found[0, :, :, 1:].transpose(0, 1).float().cpu()
    return on_patches.reshape(*on_patches.shape[:2], rows, columns)


def check_attention(loaded: LoadedBackbone, queries: Sequence[Query]) -> None:
    """Refuse what `attention_maps` would refuse, before anything is computed.

    Raises:
        UsageError: The class token is asked for and the network has none.
        WeightsError: The network's attention cannot be read.
    """
    backbone = _backbone(loaded)
    if isinstance(backbone, TimmBackbone) and backbone.heads is None:
        raise WeightsError(
            f"The attention of {loaded.description} is of a kind that cannot be read from it.",
            "Plain vision transformers of timm and its BEiT can be shown; --pca works for every network with patches.",
        )
    if CLS in queries and not backbone.has_class_token:
        raise UsageError(
            f"This network has no class token, so there is no attention of it: {loaded.description}.",
            "Name the points whose attention you want with --at X,Y, or draw the patch features with --pca.",
        )


def attention_notes(loaded: LoadedBackbone) -> list[str]:
    """What one should know about this network's attention of the class token, as sentences."""
    if isinstance(getattr(loaded.backbone, "norm", None), PooledNorm):
        return [
            "The network was fine-tuned on the mean of its patches: its class token was not trained, and what it "
            "attends to is left over from pre-training. --at X,Y shows what patches attend to."
        ]
    return []


def patch_features(loaded: LoadedBackbone, whole: WholeImage, device: torch.device | str = "cpu") -> Tensor:
    """The patch tokens of the last block after the final norm, float32 `[rows * columns, D]` on the CPU.

    Args:
        loaded: The network; it is moved to `device`.
        whole: From `whole_image`, with the same network.
        device: Where to compute.
    """
    backbone, device = _backbone(loaded), torch.device(device)
    with exact_float32(device):
        tokens = backbone.to(device).last_blocks(whole.pixels[None].to(device), 1)[-1].patches
    return tokens[0].float().cpu()


def _backbone(loaded: LoadedBackbone) -> Backbone | TimmBackbone:
    assert isinstance(loaded.backbone, (Backbone, TimmBackbone))  # `load_weights` gives nothing else
    return loaded.backbone
