"""Features on one scale."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_ROWS = 2**14


def standardized(features: Tensor) -> Tensor:
    """Each feature less its mean, over its standard deviation; features that never change become 0.

    A few features of large variance would else decide what is near.

    Args:
        features: float `[n, D]` on the CPU, n >= 1.

    Returns:
        float32 `[n, D]`, a copy.
    """
    mean = _mean(features, torch.zeros(features.shape[1], dtype=torch.float64), 1)
    spread = _mean(features, mean, 2).sqrt()
    # what float32 cannot tell from a constant would be blown up to noise
    scale = torch.where(spread > 1e-6 * mean.abs(), 1 / spread, 0)
    out = torch.empty(features.shape, dtype=torch.float32)
    for start in range(0, len(features), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        out[rows] = ((features[rows].double() - mean) * scale).float()
    return out


def _mean(features: Tensor, center: Tensor, power: int) -> Tensor:
    """Mean of `(features - center) ** power` over the rows, float64 `[D]`."""
    parts = ((chunk.double() - center).pow(power).sum(dim=0) for chunk in features.split(_CHUNK_ROWS))
    return torch.stack(list(parts)).sum(dim=0) / len(features)
