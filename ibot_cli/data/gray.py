"""The photometric changes of many grey views at once.

One call on a Pillow image costs several microseconds whatever its size; for tiny grey views that is most of the work.
Here flips, brightness and contrast are NumPy operations on a stack, with the arithmetic of Pillow's `blend` (float32,
cut to whole levels after each operation).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import mul

import numpy as np
from PIL import Image, ImageFilter

from ibot_cli.data.changes import BRIGHTNESS, CONTRAST, SATURATION, Changes

LEVELS = range(256)
SMALL = 4096
MAX_PIXELS = 2**20


def change_stack(levels: np.ndarray, changes: Sequence[Changes], threshold: int) -> np.ndarray:
    """Apply to each grey view what was drawn for it.

    Args:
        levels: uint8 `[n, H, W]`; may be changed in place.
        changes: One per view.
        threshold: Of solarisation.

    Returns:
        uint8 `[n, H, W]`, each view as `apply_changes` makes it.
    """
    step = max(MAX_PIXELS // max(levels[0].size, 1), 1)
    parts = [_change(levels[i : i + step], changes[i : i + step], threshold) for i in range(0, len(levels), step)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _change(levels: np.ndarray, changes: Sequence[Changes], threshold: int) -> np.ndarray:
    flipped = [index for index, change in enumerate(changes) if change.flip]
    if flipped:
        levels[flipped] = levels[flipped, :, ::-1]
    for turn in range(max(len(change.jitter) for change in changes)):
        levels = _blend(levels, [change.jitter[turn : turn + 1] for change in changes])
    for index, change in enumerate(changes):
        if change.blur_radius:
            image = Image.fromarray(levels[index]).filter(ImageFilter.GaussianBlur(change.blur_radius))
            levels[index] = np.asarray(image)
    inverted = [index for index, change in enumerate(changes) if change.solarize]
    if inverted:
        part = levels[inverted]
        levels[inverted] = np.where(part >= threshold, 255 - part, part)
    return levels


def _blend(levels: np.ndarray, operations: Sequence[tuple[tuple[int, float], ...]]) -> np.ndarray:
    """Brightness or contrast of each view; an empty tuple leaves a view as it is."""
    factors = np.array([op[0][1] if op else 1.0 for op in operations], dtype=np.float32)[:, None, None]
    contrast = np.array([bool(op) and op[0][0] == CONTRAST for op in operations])
    mean = np.floor(levels.sum(axis=(1, 2), dtype=np.int64) / levels[0].size + 0.5)
    base = np.where(contrast, mean, 0).astype(np.float32)[:, None, None]
    values = levels.astype(np.float32)
    values -= base
    values *= factors
    values += base
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def apply_changes(image: Image.Image, changes: Changes, threshold: int) -> Image.Image:
    """The changed image; `image` itself stays as it is."""
    colour = image.mode != "L"
    if changes.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for op, factor in changes.jitter:
        if op == BRIGHTNESS:
            image = Image.blend(_plain(image.mode, image.size), image, factor)
        elif op == CONTRAST:
            image = _contrast(image, factor)
        elif colour:
            image = _saturation(image, factor) if op == SATURATION else _hue(image, factor)
    if changes.gray and colour:
        image = image.convert("L").convert("RGB")
    if changes.blur_radius:
        image = image.filter(ImageFilter.GaussianBlur(changes.blur_radius))
    if changes.solarize:
        image = image.point(_solarized(threshold) * len(image.getbands()))
    return image


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    gray = image if image.mode == "L" else image.convert("L")
    width, height = image.size
    # a histogram has a fixed cost of 256 Python integers
    total = sum(gray.tobytes()) if width * height < SMALL else sum(map(mul, LEVELS, gray.histogram()))
    mean = int(total / (width * height) + 0.5)
    flat = Image.new(image.mode, image.size, mean if image.mode == "L" else (mean, mean, mean))
    return Image.blend(flat, image, factor)


def _saturation(image: Image.Image, factor: float) -> Image.Image:
    return Image.blend(image.convert("L").convert("RGB"), image, factor)


def _hue(image: Image.Image, turns: float) -> Image.Image:
    """Hue is shifted in whole levels and wraps."""
    return image.convert("HSV").point(_shifted(int(turns * 255) % 256)).convert("RGB")


@lru_cache(maxsize=256)
def _shifted(levels: int) -> list[int]:
    """Lookup table for the bands H, S and V."""
    return [(level + levels) % 256 for level in LEVELS] + [*LEVELS] * 2


@lru_cache(maxsize=8)
def _solarized(threshold: int) -> list[int]:
    return [level if level < threshold else 255 - level for level in LEVELS]


@lru_cache(maxsize=16)
def _plain(mode: str, size: tuple[int, int]) -> Image.Image:
    """A black image; read only."""
    return Image.new(mode, size)
