"""Which of a network's own prototypes each image belongs to."""

from __future__ import annotations

import torch
from torch import Tensor

from ibot_cli.core.heads import Head
from ibot_cli.evaluate.precision import exact_float32

_CHUNK_ELEMENTS = {"cpu": 2**22, "cuda": 2**26}  # scores held at once


def nearest_prototypes(head: Head, cls: Tensor, *, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """The prototype with the highest score of each class token, and that score.

    Scores are raw: neither centred nor divided by a temperature.

    Args:
        head: Projection head; it is moved to `device`, its mode is restored.
        cls: Class tokens, float `[n, D]`.
        device: Where to compute.

    Returns:
        Prototype int64 `[n]` and score float32 `[n]`, on the CPU.

    Source:
        iBOT (arXiv 2111.07832), unsupervised classification and monitoring of the authors' code.
    """
    device = torch.device(device)
    elements = _CHUNK_ELEMENTS.get(device.type, _CHUNK_ELEMENTS["cpu"])
    rows = max(1, elements // max(num_prototypes(head), _widest(head)))
    was_training = head.training
    head.to(device).eval()
    try:
        with exact_float32(device):
            found = [head.cls_logits(head.bottleneck(chunk.to(device))).max(dim=1) for chunk in cls.split(rows)]
    finally:
        head.train(was_training)
    scores = torch.cat([each.values for each in found]).float().cpu()
    return torch.cat([each.indices for each in found]).cpu(), scores


def num_prototypes(head: Head) -> int:
    """K of the CLS head."""
    return len(head.last_layer.weight_v)


def _widest(head: Head) -> int:
    return max(parameter.shape[0] for parameter in head.mlp.parameters())
