"""Perceptual hashes: 63 bits that hardly change when an image is re-encoded, resized or brightened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32
LOW = 8
OUTLINE = 8
FLAT = 2.0
_WAVES = np.cos(np.pi * np.outer(np.arange(LOW), 2 * np.arange(SIDE) + 1) / (2 * SIDE))
# Neighbouring frequencies agree too often; a block of the hash, by which the search finds candidates, mixes far ones.
_ORDER = 1 + (np.arange(LOW * LOW - 1) * 16) % (LOW * LOW - 1)


@dataclass(frozen=True, eq=False)
class Hashes:
    """What n images look like.

    Attributes:
        bits: uint64 `[n]`, the signs of the 63 lowest frequencies but the mean.
        outlines: int8 `[n, 64]`, 8 x 8 mean grey levels around their mean, scaled to at most 127.
        flat: bool `[n]`; the thumbnail's standard deviation is below 2 levels, so that bits and outline are noise.
    """

    bits: NDArray[np.uint64]
    outlines: NDArray[np.int8]
    flat: NDArray[np.bool_]


def thumbnail(levels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Mean grey levels of 32 x 32 parts of an image.

    Args:
        levels: uint8 or uint16 `[H, W, C]`. Three channels become luma; other numbers of channels their mean.

    Returns:
        float32 `[32, 32]`, in levels: on a scale of 0..255 or 0..65535.
    """
    channels = levels.shape[2]
    if levels.dtype == np.uint8 and channels in (1, 3):
        image = Image.fromarray(np.ascontiguousarray(levels[..., 0] if channels == 1 else levels)).convert("L")
    else:
        image = Image.fromarray(levels.mean(axis=2, dtype=np.float32))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)


def hash_thumbnails(thumbnails: NDArray[np.float32]) -> Hashes:
    """Hashes of images.

    Args:
        thumbnails: float32 `[n, 32, 32]`, of `thumbnail`.

    Source:
        The DCT hash of C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), with a
        threshold of 0 in the place of the median: a change of brightness or contrast leaves signs as they are.
    """
    exact = thumbnails.astype(np.float64)
    waves = (_WAVES @ exact @ _WAVES.T).reshape(-1, LOW * LOW)
    positive = (waves[:, _ORDER] > 0).astype(np.uint64)
    bits = (positive << np.arange(len(_ORDER), dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    step = SIDE // OUTLINE
    outlines = exact.reshape(-1, OUTLINE, step, OUTLINE, step).mean(axis=(2, 4)).reshape(-1, OUTLINE**2)
    outlines -= outlines.mean(axis=1, keepdims=True)
    outlines *= 127 / np.maximum(np.abs(outlines).max(axis=1, keepdims=True, initial=0), 1e-9)
    return Hashes(bits, np.rint(outlines).astype(np.int8), exact.std(axis=(1, 2)) < FLAT)
