"""Patch features as colours: their first three principal components, on one basis for several images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_CUT = 0.02  # of all patches at either end of a component get its extreme colour


def shared_colours(features: Sequence[Tensor]) -> list[Tensor]:
    """The same colour for the same feature, in every image.

    Args:
        features: float `[n, D]` of each image.

    Returns:
        For each image float32 `[n, 3]` in 0..1: the three directions in which all patches together vary most are red,
        green and blue, each from its 2 % to its 98 % quantile. A direction without variance is 0.5.

    Raises:
        ValueError: There is no feature.
    """
    every = torch.cat(list(features)).double()
    if len(every) == 0:
        raise ValueError("no feature")
    centred = every - every.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending
    basis = vectors.flip(1)[:, :3]
    largest = basis.abs().argmax(dim=0)
    basis = basis * basis[largest, torch.arange(basis.shape[1])].sign()  # the sign of an eigenvector means nothing
    values = centred @ basis
    low, high = torch.from_numpy(np.quantile(values.numpy(), [_CUT, 1 - _CUT], axis=0))
    spread = high - low
    flat = spread <= 1e-9 * centred.abs().max().clamp_min(1e-30)
    scaled = ((values - low) / torch.where(flat, 1.0, spread)).clamp(0, 1)
    scaled = torch.where(flat, 0.5, scaled)
    colours = torch.full((len(every), 3), 0.5)
    colours[:, : scaled.shape[1]] = scaled.float()
    return list(colours.split([len(rows) for rows in features]))


def colour_picture(colours: Tensor, grid: tuple[int, int]) -> Image.Image:
    """One pixel per patch, mode `RGB`; `colours` `[rows * columns, 3]` in 0..1."""
    levels = (colours * 255).round().to(torch.uint8).reshape(*grid, 3)
    return Image.fromarray(levels.numpy())
