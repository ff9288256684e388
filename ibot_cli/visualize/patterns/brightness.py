"""How bright patches and images are: the mean of V of their HSV colours.

Shapes: B images, C channels, N patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def levels(images: Tensor, mean: Sequence[float], std: Sequence[float], bits: int = 8) -> Tensor:
    """The levels behind normalised images `[B, C, H, W]`, as float32 numbers 0 to 255; whole ones for 8 bits."""
    center = torch.tensor(mean, dtype=torch.float32, device=images.device).view(-1, 1, 1)
    spread = torch.tensor(std, dtype=torch.float32, device=images.device).view(-1, 1, 1)
    found = images.mul(spread).add_(center).mul_(2**bits - 1).round_()
    return found if bits == 8 else found.div_(257)


def patch_brightness(found: Tensor, stride: int) -> Tensor:
    """Mean over each patch, float32 `[B, N]`.

    Args:
        found: From `levels`.
        stride: Side of a patch in pixels.

    Source:
        The authors' figures leave out patches whose context window has a mean V of at most 40. Here it is the patch
        itself, so that what counts does not depend on how much is drawn around it, and a dark patch is not kept for
        its bright neighbours.
    """
    return functional.avg_pool2d(found.amax(dim=1, keepdim=True), stride).flatten(1)


def image_brightness(found: Tensor) -> Tensor:
    """Mean over each whole image, float32 `[B, 1]`; `found` is from `levels`."""
    return found.amax(dim=1).flatten(1).mean(dim=1, keepdim=True)
