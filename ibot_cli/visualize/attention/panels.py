"""The single pictures of an attention figure: the image, all heads in colours, and each head.

Shapes: h heads; maps are `[h, rows, columns]`. Each patch becomes a square of the panel, without blur.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from ibot_cli.visualize.attention.colours import head_colours, heat
from ibot_cli.visualize.attention.mass import mass_mask
from ibot_cli.visualize.whole_image import WholeImage

Floats = NDArray[np.float64]
_Kind = TypeVar("_Kind", bound=np.generic)
_DARKENED = 0.35  # of its brightness is left to what stands behind the colours
_TINT = 0.45  # of the head's colour where the image shines through
_HIGH = 0.99
_MARK, _MARK_EDGE = "#ffffff", "#1d1d1f"


@dataclass(frozen=True, kw_only=True)
class Panels:
    """Pictures of one size, mode `RGB`.

    Attributes:
        image: What the network sees, the query's patch outlined if there is one.
        overlay: The colour of the strongest head of each patch, over the darkened grey image.
        heads: A picture per head: its heat map, or its smallest set of patches over the image.
    """

    image: Image.Image
    overlay: Image.Image
    heads: tuple[Image.Image, ...]


def attention_panels(
    whole: WholeImage,
    maps: Tensor,
    *,
    threshold: float | None = None,
    query: tuple[int, int] | None = None,
    side: int = 240,
) -> Panels:
    """Draw the attention of one query.

    Args:
        whole: The image.
        maps: float `[h, rows, columns]`, not negative.
        threshold: Show the smallest set of patches that holds this share of each head's attention, above 0 and at
            most 1; None shows heat maps, each head's 99th percentile and all
            above it lightest.
        query: Row and column of the patch whose attention it is.
        side: About the side of each picture, in pixels.
    """
    step = patch_pixels(whole, side)
    shown = enlarged(whole, step)
    pixels = np.asarray(shown.convert("RGB"), dtype=np.float64)
    dark = np.asarray(shown.convert("L"), dtype=np.float64)[..., None].repeat(3, axis=-1) * _DARKENED
    values: Floats = maps.double().numpy()
    colours = np.array(head_colours(len(values)), dtype=np.float64)
    sets = None if threshold is None else mass_mask(maps, threshold).numpy()
    if sets is None:
        heads = [_picture(_squares(heat(_of_high(value)), step)) for value in values]
    else:
        heads = [_highlighted(pixels, dark, held, colour, step) for held, colour in zip(sets, colours, strict=True)]
        values = values * sets
    return Panels(image=_marked(shown, query, step), overlay=_overlay(dark, values, colours, step), heads=tuple(heads))


def patch_pixels(whole: WholeImage, side: int) -> int:
    """Pixels of a panel per patch and side, so that the panel covers about `side` x `side`.

    Where the image is enlarged, by a whole factor, so that its own pixels stay sharp squares too.
    """
    rows, columns = whole.grid
    step = max(1, round(side / math.sqrt(rows * columns)))
    return step if step < whole.stride else step // whole.stride * whole.stride


def enlarged(whole: WholeImage, step: int) -> Image.Image:
    """The image with `step` pixels per patch and side: enlarged without blur, or reduced."""
    size = (whole.grid[1] * step, whole.grid[0] * step)
    smooth = step < whole.stride
    return whole.shown.resize(size, Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)


def _overlay(dark: Floats, values: Floats, colours: Floats, step: int) -> Image.Image:
    """A patch is as strong as its largest value; see `_of_high`."""
    strongest, winner = values.max(axis=0), values.argmax(axis=0)
    strength = _of_high(strongest)
    return _picture(_blend(dark, _squares(colours[winner], step), _squares(strength[..., None], step)))


def _highlighted(pixels: Floats, dark: Floats, held: NDArray[np.bool_], colour: Floats, step: int) -> Image.Image:
    """The image in a tint of the head's colour where the head's attention is, dark elsewhere."""
    tinted = _blend(pixels, colour, np.array(_TINT))
    return _picture(np.where(_squares(held[..., None], step), tinted, dark))


def _marked(shown: Image.Image, query: tuple[int, int] | None, step: int) -> Image.Image:
    image = shown.convert("RGB")
    if query is None:
        return image
    stroke = max(2, min(image.size) // 80)
    draw = ImageDraw.Draw(image)
    left, top = query[1] * step, query[0] * step
    for width, colour in ((2 * stroke, _MARK_EDGE), (stroke, _MARK)):
        box = (left - width, top - width, left + step + width - 1, top + step + width - 1)
        draw.rectangle(box, outline=colour, width=stroke)
    return image


def _of_high(value: Floats) -> Floats:
    """Shares of the 99th percentile, at most 1: a few patches far above all others would leave the rest dark."""
    high = float(np.quantile(value, _HIGH, method="higher")) or float(value.max())
    return np.minimum(value / max(high, np.finfo(np.float64).tiny), 1)


def _squares(values: NDArray[_Kind], step: int) -> NDArray[_Kind]:
    """`[rows, columns, C]` with each entry as a square of `step` pixels."""
    return values.repeat(step, axis=0).repeat(step, axis=1)


def _blend(below: Floats, above: Floats, share: Floats) -> Floats:
    return below * (1 - share) + above * share


def _picture(levels: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(np.rint(levels).astype(np.uint8))
