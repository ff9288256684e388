"""The pictures on a sheet of training views: the source with its crops, and views with their masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ibot_cli.data.formats.bands import displayable
from ibot_cli.visualize.scaling import scaled
from ibot_cli.visualize.views.result import Point, SeenSample

_SMOOTH = 3  # boxes are drawn this much larger, then made smaller
_RIM = (20, 20, 22, 200)
_VEIL, _HATCH = (178, 178, 182, 255), (240, 240, 238, 255)
_HATCH_STEP = 8
_NUMBER = 10


def source_with_boxes(
    image: Image.Image, sample: SeenSample, colours: Sequence[str], size: tuple[int, int]
) -> Image.Image:
    """The source with the crop of every view in its colour and with its number; local ones are thin and on top.

    Args:
        image: The source.
        sample: Its views.
        colours: One per view.
        size: Of the result.
    """
    layer = Image.new("RGBA", (size[0] * _SMOOTH, size[1] * _SMOOTH), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    scale = size[0] / sample.source_size[0] * _SMOOTH, size[1] / sample.source_size[1] * _SMOOTH
    for view, colour in zip(sample.views, colours, strict=True):
        corners = [(x * scale[0], y * scale[1]) for x, y in view.corners]
        _box(draw, corners, colour, 2.4 if view.kind == "global" else 1.4)
    for view, colour in zip(sample.views, colours, strict=True):
        x, y = view.corners[0]
        _badge(draw, (x * scale[0], y * scale[1]), str(view.number), colour, layer.size)
    small = layer.convert("RGBa").resize(size, Image.Resampling.BOX).convert("RGBA")
    return Image.alpha_composite(scaled(image, size).convert("RGBA"), small).convert("RGB")


def masked_view(levels: NDArray[np.unsignedinteger[Any]], mask: NDArray[np.bool_], side: int) -> Image.Image:
    """A global view with the patches that the student does not see covered by a hatched veil.

    Args:
        levels: uint8 or uint16 `[H, H, C]`.
        mask: bool `[grid, grid]`.
        side: Of the result in pixels.
    """
    image = scaled(displayable(levels), (side, side))
    veil = Image.new("RGB", (side, side), _VEIL[:3])
    draw = ImageDraw.Draw(veil)
    for start in range(-side, side, _HATCH_STEP):
        draw.line((start, side, start + side, 0), fill=_HATCH[:3], width=1)
    covered = Image.fromarray(mask.astype(np.uint8) * 255)
    # by the nearest patch of each pixel, so that the edges lie where those of the patches do
    return Image.composite(veil, image, covered.resize((side, side), Image.Resampling.NEAREST))


def _box(draw: ImageDraw.ImageDraw, corners: Sequence[Point], colour: str, width: float) -> None:
    ring = [*corners, corners[0], corners[1]]
    for fill, stroke in ((_RIM, width + 1.4), (colour, width)):
        draw.line(ring, fill=fill, width=round(stroke * _SMOOTH), joint="curve")


def _badge(draw: ImageDraw.ImageDraw, corner: Point, text: str, colour: str, limits: tuple[int, int]) -> None:
    """The number at the corner, moved inside where it would be cut off."""
    font = ImageFont.load_default(_NUMBER * _SMOOTH)
    width, height = font.getlength(text) + 4 * _SMOOTH, (_NUMBER + 3) * _SMOOTH
    left = min(max(corner[0], 0), limits[0] - width)
    top = min(max(corner[1], 0), limits[1] - height)
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    draw.text((left + width / 2, top + height / 2), text, fill="#ffffff", font=font, anchor="mm")
