"""Nearest patches by the cosine of their features.

Shapes: B pairs, N patches of the first image, M of the second, D token width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ibot_cli.evaluate.precision import arithmetic
from ibot_cli.weights.load import LoadedBackbone

_PRODUCTS = 2**24  # cosines at a time


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest patches of two images in each other.

    Attributes:
        forward: int64 `[N]`, for each patch of the first image its nearest in the second.
        cosine: float32 `[N]`, of these two.
        back: int64 `[M]`, for each patch of the second image its nearest in the first.
    """

    forward: NDArray[np.int64]
    cosine: NDArray[np.float32]
    back: NDArray[np.int64]

    @property
    def mutual(self) -> NDArray[np.bool_]:
        """bool `[N]`: whether a patch of the first image is also the nearest of its nearest."""
        answer: NDArray[np.bool_] = self.back[self.forward] == np.arange(len(self.forward))
        return answer


def patch_features(loaded: LoadedBackbone, pixels: Tensor, *, device: torch.device, precision: str = "fp32") -> Tensor:
    """Patch tokens of the last layer after its norm, of length 1.

    Args:
        loaded: The network; it is left on `device`.
        pixels: Normalised, `[B, C, H, W]`.
        device: Where to compute.
        precision: `fp32` or `bf16`.

    Returns:
        float32 `[B, N, D]` on `device`.
    """
    backbone = loaded.backbone.to(device).eval()
    with arithmetic(device, precision):
        patches: Tensor = backbone.last_blocks(pixels.to(device), 1)[-1].patches  # type: ignore[operator]
    return functional.normalize(patches.float(), dim=-1)


@torch.no_grad()
def nearest_patches(first: Tensor, second: Tensor) -> Nearest:
    """The nearest patches of two images in each other; of equally near ones the first counts.

    Args:
        first: Features of length 1, `[N, D]`.
        second: `[M, D]`.
    """
    forward, cosines = [], []
    best = torch.full((len(second),), -torch.inf, device=second.device)
    back = torch.zeros(len(second), dtype=torch.int64, device=second.device)
    rows = max(1, _PRODUCTS // len(second))
    for start in range(0, len(first), rows):
        products = first[start : start + rows] @ second.T
        cosine, place = products.max(dim=1)
        forward.append(place)
        cosines.append(cosine)
        above, here = products.max(dim=0)
        better = above > best
        best, back = torch.where(better, above, best), torch.where(better, here + start, back)
    return Nearest(torch.cat(forward).cpu().numpy(), torch.cat(cosines).cpu().numpy(), back.cpu().numpy())
