"""Spreading the features of a batch: the KoLeo term.

Shapes: V views, B images, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

FLOOR = 1e-4  # distances far below it count as this one; the gradient of nearer images ends there instead of growing


def koleo_loss(features: Tensor) -> Tensor:
    """Minus the mean log distance to the nearest other image of the same view, on the unit sphere.

    Two images of the same features give `-log(FLOOR)` and no gradient; DINOv2's code, whose floor is 1e-8, gives such
    pairs one of 1e7. Between images that differ by more than 0.01 the two agree to 1e-4.

    Args:
        features: `[V, B, D]`, in any precision; distances are taken in float32, or in float64 if given so.

    Returns:
        The sum over the views of their means over the images, a scalar in nats; it may be negative. With one image
        there is no neighbour: 0, with a gradient of 0.

    Source:
        Spreading vectors for similarity search (arXiv 1806.03198); per view, summed over views and on the images of one
        process as in DINOv2 (arXiv 2304.07193).
    """
    num_images = features.shape[1]
    with torch.autocast(features.device.type, enabled=False):
        wide = features if features.dtype == torch.float64 else features.float()
        if num_images < 2:
            return wide.sum() * 0.0
        points = functional.normalize(wide, dim=-1)
        with torch.no_grad():
            cosines = points @ points.transpose(1, 2)
            cosines.diagonal(dim1=1, dim2=2).fill_(-2.0)
            nearest = cosines.argmax(dim=-1, keepdim=True).expand_as(points)
        squares = (points - points.gather(1, nearest)).square().sum(dim=-1)
        return -0.5 * torch.log(squares + FLOOR**2).mean(dim=1).sum()
