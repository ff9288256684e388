"""Mean and standard deviation of the channels of images: exact per image, each image with the same weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FULL_SCALE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moment of the channels, of levels scaled to 0..1.

    The mean of several images' moments weighs each image the same, whatever its size: training takes crops of one
    size from each image once an epoch, so it sees a small image as often as a large one.

    Attributes:
        mean: float64 `[C]` or `[n, C]`.
        square: float64, the mean of the squares, of the same shape.
    """

    mean: NDArray[np.float64]
    square: NDArray[np.float64]

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation around the mean, float64."""
        return np.sqrt(np.maximum(self.square - self.mean**2, 0.0))

    def pooled(self) -> Moments:
        """Of all pixels of n images, `[n, C]` to `[C]`.

        The standard deviation is that of the pixels around the common mean, so that what is normalised with it has
        variance 1. ImageNet's usual 0.229, 0.224, 0.225 are averages of the images' own deviations, which are smaller.
        """
        return Moments(self.mean.mean(axis=0), self.square.mean(axis=0))


def histograms(levels: NDArray[np.generic]) -> NDArray[np.int64]:
    """Number of pixels of each level.

    Args:
        levels: uint8 or uint16 `[H, W, C]`.

    Returns:
        int64 `[C, 256]` or `[C, 65536]`.
    """
    if levels.dtype == np.uint8 and levels.shape[2] in (1, 3):
        image = Image.fromarray(np.ascontiguousarray(levels.squeeze(2) if levels.shape[2] == 1 else levels))
        return np.array(image.histogram(), dtype=np.int64).reshape(-1, 256)
    length = FULL_SCALE[levels.dtype] + 1
    channels = np.moveaxis(levels, 2, 0).reshape(levels.shape[2], -1)
    return np.stack([np.bincount(channel, minlength=length) for channel in channels])


def moments_of(counts: NDArray[np.int64]) -> Moments:
    """Moments `[C]` of one image from its `histograms`; sums are exact integers."""
    top = counts.shape[1] - 1
    levels = np.arange(top + 1, dtype=np.int64)
    pixels = counts[0].sum()
    return Moments(counts @ levels / (pixels * top), counts @ levels**2 / (pixels * top**2))
