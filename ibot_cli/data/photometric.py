"""Flip, colour jitter, grey, blur and solarisation, on Pillow images.

The operations and their order are the published ones; results are pixel-identical to torchvision's on Pillow images.
For grey images saturation, hue and grey are identities and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from typing import NamedTuple

from PIL import Image, ImageFilter

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NUM_DRAWS = 14
LEVELS = range(256)
SMALL = 4096


class Strengths(NamedTuple):
    """How strongly and how often one kind of view is changed; the fields of `ViewsConfig` of the same names."""

    flip_prob: float
    jitter_prob: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gray_prob: float
    blur_prob: float
    blur_radius: tuple[float, float]
    solarize_prob: float


class Changes(NamedTuple):
    """What happens to one view.

    Attributes:
        flip: Whether it is mirrored.
        jitter: (operation, factor) in the order of application; hue factors are turns.
        gray: Whether it becomes grey.
        blur_radius: Of the Gaussian blur in pixels, or 0 for none.
        solarize: Whether levels at or above the threshold are inverted.
    """

    flip: bool
    jitter: tuple[tuple[int, float], ...]
    gray: bool
    blur_radius: float
    solarize: bool


def draw_changes(strengths: Strengths, draws: Sequence[float]) -> Changes:
    """What the uniform numbers `draws` (`NUM_DRAWS` of them) mean.

    Each decision has its own number, so that a changed probability leaves the other decisions as they were.
    """
    flip, jitter, *numbers, gray, blur, radius, solarize = draws
    low, high = strengths.blur_radius
    return Changes(
        flip=flip < strengths.flip_prob,
        jitter=_draw_jitter(strengths, numbers) if jitter < strengths.jitter_prob else (),
        gray=gray < strengths.gray_prob,
        blur_radius=low + (high - low) * radius if blur < strengths.blur_prob else 0.0,
        solarize=solarize < strengths.solarize_prob,
    )


def _draw_jitter(strengths: Strengths, numbers: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Operations in random order (the first four numbers are sort keys) with their factors (the other four)."""
    order = sorted(range(4), key=numbers.__getitem__)
    spreads = (strengths.brightness, strengths.contrast, strengths.saturation, strengths.hue)
    return tuple((op, (op != HUE) + spreads[op] * (2 * numbers[4 + op] - 1)) for op in order if spreads[op])


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
