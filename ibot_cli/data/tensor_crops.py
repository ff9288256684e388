"""Crops of levels: by torch, in a quarter of Pillow's time on colour images, or by Pillow where torch is slower.

Crops by torch are those of torchvision on uint8. They differ from Pillow's by at most 1 level, but for 1 in 5 million
levels, which differ by 2; measured on 600 published crops of two photographs. Pillow from 13 on changes the order of
its passes where the height alone shrinks: there 3 in 100,000 levels, where filters overshoot, differ by up to 7, and
of lines and dots of single pixels 2 in 100 by up to 23.
Pillow cuts what is turned, begins between two pixels, or is small and grey: there the arithmetic is less than the
overhead of torch's operation, which is 15 microseconds more than that of Pillow's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ibot_cli.data.crops import BICUBIC, crop_resized, turn_coefficients
from ibot_cli.data.decode import MODES

Box = tuple[int, int, int, int]
SMALL_GRAY = 64 * 64


class Cut(Protocol):
    """One crop."""

    @property
    def box(self) -> Box:
        """Left, top, width, height in whole pixels of the whole image."""

    @property
    def size(self) -> int:
        """Side of the result."""

    @property
    def degrees(self) -> float:
        """The image is first turned counter-clockwise about its centre by this; what comes from outside is 0."""


def cut_levels(levels: np.ndarray, cuts: Sequence[Cut], shrink: int = 1) -> list[Tensor]:
    """Boxes of one image, resized to squares (bicubic, antialiased).

    Args:
        levels: uint8 or uint16 `[H, W, C]`.
        cuts: At least one.
        shrink: `levels` were decoded at 1 / `shrink` of the size of the whole image; then they are uint8 with 1 or 3
            channels, and nothing is turned.

    Returns:
        Levels of the same type, `[size, size, C]` each, not to be changed in place.
    """
    height, width, channels = levels.shape
    plain = levels.dtype == np.uint8 and channels in MODES
    small = channels == 1 and height * width <= SMALL_GRAY
    if plain and (small or shrink > 1 or any(cut.degrees for cut in cuts)):
        mode = MODES[channels]
        image = Image.frombuffer(mode, (width, height), levels, "raw", mode, 0, 1)  # unlike fromarray without a copy
        if shrink > 1:
            return _together([_cut_between(image, cut, shrink) for cut in cuts], channels)
        return _together([crop_resized(image, cut.box, cut.size, cut.degrees) for cut in cuts], channels)
    whole = as_tensor(levels)
    return [_resized(_turned(levels, cut) if cut.degrees else _part(whole, cut.box), cut.size) for cut in cuts]


def as_tensor(levels: np.ndarray) -> Tensor:
    """The levels as a tensor that shares their memory, and is not to be changed."""
    if levels.flags.writeable:
        return torch.from_numpy(levels)
    with warnings.catch_warnings():  # torch warns that what Pillow decoded must not be written to
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(levels)


def _together(images: Sequence[Image.Image], channels: int) -> list[Tensor]:
    """`[H, W, C]` of each image, in one piece of memory: for tiny images a call costs more than their pixels."""
    content = np.frombuffer(bytearray().join([image.tobytes() for image in images]), dtype=np.uint8)
    found, start = [], 0
    for width, height in [image.size for image in images]:
        stop = start + width * height * channels
        found.append(torch.from_numpy(content[start:stop].reshape(height, width, channels)))
        start = stop
    return found


def _part(levels: Tensor, box: Box) -> Tensor:
    left, top, width, height = box
    return levels[top : top + height, left : left + width]


def _cut_between(image: Image.Image, cut: Cut, shrink: int) -> Image.Image:
    """A box that begins and ends between the pixels of a smaller image.

    torch resizes whole pixels only, which moved views by so much that they differed by 2 to 3 levels in the mean.
    """
    left, top, width, height = cut.box
    edges = (left / shrink, top / shrink, (left + width) / shrink, (top + height) / shrink)
    return image.resize((cut.size, cut.size), BICUBIC, box=edges)


def _turned(levels: np.ndarray, cut: Cut) -> Tensor:
    """A box of a turned image whose bands Pillow has to turn one by one."""
    left, top, width, height = cut.box
    coefficients = turn_coefficients(levels.shape[1], levels.shape[0], left, top, cut.degrees)
    turned = [
        np.asarray(band.transform((width, height), Image.Transform.AFFINE, coefficients, BICUBIC))
        for band in (Image.fromarray(levels[..., place].astype(np.float32)) for place in range(levels.shape[2]))
    ]
    values = np.stack(turned, axis=2).round().clip(0, np.iinfo(levels.dtype).max)
    return torch.from_numpy(values.astype(levels.dtype))


def _resized(part: Tensor, size: int) -> Tensor:
    """Levels `[H, W, C]` as `[size, size, C]`, bicubic with antialiasing."""
    if part.shape[0] == part.shape[1] == size:
        return part
    images = part.permute(2, 0, 1).unsqueeze(0)
    if part.dtype == torch.uint8 and part.shape[2] in MODES:
        if part.shape[2] > 1:  # torch takes a part of an image for one whose channels come first
            images = images.contiguous(memory_format=torch.channels_last)
        return interpolate(images, (size, size), mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    values = interpolate(images.float(), (size, size), mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    return values.round_().clamp_(0, torch.iinfo(part.dtype).max).to(part.dtype)
