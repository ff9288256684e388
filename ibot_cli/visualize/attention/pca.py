"""Patch features as colours: what varies most over all images becomes red, green and blue.

Shapes: n patches of an image, D token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ibot_cli.visualize.attention.panels import enlarged, patch_pixels
from ibot_cli.visualize.sheets import picture_sheet
from ibot_cli.visualize.whole_image import WholeImage

_TAILS = 0.02  # of all patches at either end of a component: they get its extreme colour
_FLAT = 1e-9  # a component that varies less than this share of all features is rounding
_PAIRS_PER_ROW = 4


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchColours:
    """Colours on one basis: equal features have equal colours in every image.

    Attributes:
        images: For each image float32 `[n, 3]` in 0..1.
        explained: Share of the variance of each of the three components.
    """

    images: tuple[Tensor, ...]
    explained: tuple[float, float, float]


def patch_colours(features: Sequence[Tensor]) -> PatchColours:
    """The first three principal components of all patches together, as red, green and blue.

    Each is stretched from its 2 % to its 98 % quantile; one without variance is 0.5 everywhere. An eigenvector's sign
    means nothing: its largest entry is made positive, so that the same features always give the same colours.

    Args:
        features: float `[n, D]` of each image, at least one patch in all.
    """
    every = torch.cat(list(features)).double()
    centred = every - every.mean(dim=0)
    variances, vectors = torch.linalg.eigh(centred.T @ centred)
    variances, vectors = variances.flip(0).clamp_min(0)[:3], vectors.flip(1)[:, :3]
    largest = vectors.abs().argmax(dim=0)
    values = centred @ (vectors * vectors[largest, torch.arange(vectors.shape[1])].sign())
    low, high = (values.sort(dim=0).values[place] for place in _tails(len(values)))
    flat = high - low <= _FLAT * every.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    scaled = torch.where(flat, 0.5, ((values - low) / torch.where(flat, 1.0, high - low)).clamp(0, 1))
    colours = torch.full((len(every), 3), 0.5)
    colours[:, : scaled.shape[1]] = scaled.float()
    total = float(centred.square().sum())
    shares = [float(variance) / total if total > 0 else 0.0 for variance in variances]
    first, second, third = (*shares, 0.0, 0.0)[:3]
    return PatchColours(images=tuple(colours.split([len(rows) for rows in features])), explained=(first, second, third))


def pca_figure(
    wholes: Sequence[WholeImage], colours: PatchColours, names: Sequence[str], *, side: int = 200
) -> Image.Image:
    """Each image beside its patches in colours, four pairs to a row.

    Args:
        wholes: The images.
        colours: Of their patches.
        names: Captions.
        side: About the side of each picture, in pixels.

    Returns:
        Mode `RGB`.
    """
    pictures, captions = [], []
    for whole, colour, name in zip(wholes, colours.images, names, strict=True):
        step = patch_pixels(whole, side)
        levels = (colour * 255).round().to(torch.uint8).reshape(*whole.grid, 3)
        squares = levels.repeat_interleave(step, dim=0).repeat_interleave(step, dim=1)
        pictures += [enlarged(whole, step), Image.fromarray(squares.numpy())]
        captions += [name, f"{whole.grid[1]} x {whole.grid[0]} patches"]
    shares = ", ".join(f"{share:.0%}" for share in colours.explained)
    return picture_sheet(
        pictures,
        columns=2 * min(_PAIRS_PER_ROW, len(wholes)),
        side=max(picture.width for picture in pictures),
        height=max(picture.height for picture in pictures),
        captions=captions,
        title=f"Patch features: the components that vary most as red, green, blue ({shares} of the variance)",
    )


def _tails(num: int) -> tuple[int, int]:
    cut = int(_TAILS * num)
    return cut, num - 1 - cut
