"""How bright patches are: the mean of V of the HSV colours in the window around each.

Shapes: B images, C channels, N patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def levels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The 8-bit levels behind normalised images `[B, C, H, W]`, as whole float32 numbers 0 to 255."""
    center = torch.tensor(mean, dtype=torch.float32, device=images.device).view(-1, 1, 1)
    spread = torch.tensor(std, dtype=torch.float32, device=images.device).view(-1, 1, 1)
    return images.mul(spread).add_(center).mul_(255).round_()


def window_brightness(found: Tensor, stride: int, window: int) -> Tensor:
    """Mean over the part of each patch's window that the network saw, float32 `[B, N]`.

    Args:
        found: From `levels`.
        stride: Side of a patch in pixels.
        window: Side of the window in patches, odd.

    Source:
        The authors' figures leave out windows with a mean V of at most 40; theirs count what lies outside as black.
    """
    patches = functional.avg_pool2d(found.amax(dim=1, keepdim=True), stride)
    around = window // 2
    if around == 0:
        return patches.flatten(1)
    # Padding by hand: the pooling itself takes no padding beyond half of its size, and windows may exceed the image.
    ones = torch.ones_like(patches[:1])
    total, seen = (
        functional.avg_pool2d(functional.pad(each, [around] * 4), window, stride=1) for each in (patches, ones)
    )
    return (total / seen).flatten(1)


def image_brightness(found: Tensor) -> Tensor:
    """Mean over each whole image, float32 `[B, 1]`; `found` is from `levels`."""
    return found.amax(dim=1).flatten(1).mean(dim=1, keepdim=True)
