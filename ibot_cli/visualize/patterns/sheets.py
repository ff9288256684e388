"""Picture sheets of patterns: the best members of one, and a row of each side by side."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

from ibot_cli.data.sources import Source
from ibot_cli.visualize.lettering import cut, drawable, line_height, wrapped
from ibot_cli.visualize.patterns.result import Member, Pattern, Patterns
from ibot_cli.visualize.patterns.tiles import Pictures, outlined_tile
from ibot_cli.visualize.patterns.wording import (
    about_pattern,
    agreement,
    beside_title,
    explanation,
    headline,
    items,
    mean_purity,
    purity_lines,
)
from ibot_cli.visualize.sheets import HAIRLINE, INK, PAPER, SOFT_INK, picture_sheet

PER_ROW = 10
_MARGIN, _GAP, _CAPTION, _BETWEEN, _HEAD_HEIGHT = 22, 6, 176, 44, 40
_TITLE, _HEAD, _NAME, _TEXT = (ImageFont.load_default(size) for size in (21, 16, 14, 12))


def pattern_sheet(
    source: Source | Pictures, pattern: Pattern, found: Patterns, *, side: int = 96, of: str | None = None
) -> Image.Image:
    """The members of one pattern in a near-square grid, best first, each patch outlined in its window.

    Args:
        source: Where the images are; an image that has become unreadable since leaves its place empty.
        pattern: One of `found`.
        found: Says what the patterns are of.
        side: Of a window, in pixels.
        of: Whose pattern it is, for the title, where it is not that of the trained weights.

    Returns:
        Mode `RGB`.
    """
    pictures, about = _pictures(source), about_pattern(pattern, found)
    return picture_sheet(
        [_tile(pictures, member, side) for member in pattern.members],
        columns=math.ceil(math.sqrt(len(pattern.members))),
        side=side,
        title=about if of is None else f"{of}: {about}",
    )


def overview_sheet(
    source: Source | Pictures, found: Patterns, *, beside: Patterns | None = None, side: int = 64
) -> Image.Image:
    """A row per pattern with its best members, and beside it those of random weights.

    Args:
        source: Where the images of both are.
        found: The patterns.
        beside: Those of random weights on the same images, or None.
        side: Of a window, in pixels.

    Returns:
        Mode `RGB`.
    """
    blocks = [found] if beside is None else [found, beside]
    width = _CAPTION + PER_ROW * (side + _GAP) - _GAP
    inner = len(blocks) * (width + _BETWEEN) - _BETWEEN
    heading = _Heading(found, inner)
    body = _MARGIN + heading.height + (_HEAD_HEIGHT if beside is not None or mean_purity(found) else 0)
    rows = max(len(block.patterns) for block in blocks)
    sheet = Image.new("RGB", (inner + 2 * _MARGIN, body + rows * (side + _GAP) - _GAP + _MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    heading.draw(draw)
    pictures = _pictures(source)
    for place, block in enumerate(blocks):
        left = _MARGIN + place * (width + _BETWEEN)
        if body > _MARGIN + heading.height:
            name = "Trained weights" if place == 0 else beside_title(block)
            _draw_head(draw, (left, body - _HEAD_HEIGHT), width, name, agreement(block))
        for row, pattern in enumerate(block.patterns):
            top = body + row * (side + _GAP)
            _draw_caption(draw, (left, top), pattern, block)
            for column, member in enumerate(pattern.members[:PER_ROW]):
                corner = (left + _CAPTION + column * (side + _GAP), top)
                _paste(sheet, _tile(pictures, member, side), corner, side)
    return sheet


class _Heading:
    """Title and explanation of an overview, as wide as allowed."""

    def __init__(self, found: Patterns, width: int) -> None:
        self._title = cut(drawable(headline(found)), _TITLE, width)
        self._lines = wrapped(drawable(explanation(found)), _TEXT, width)
        self._step = round(1.15 * line_height(_TEXT))
        self._below = round(1.35 * line_height(_TITLE))
        self.height = self._below + len(self._lines) * self._step + 14

    def draw(self, draw: ImageDraw.ImageDraw) -> None:
        draw.text((_MARGIN, _MARGIN), self._title, fill=INK, font=_TITLE)
        for number, line in enumerate(self._lines):
            draw.text((_MARGIN, _MARGIN + self._below + number * self._step), line, fill=SOFT_INK, font=_TEXT)


def _draw_head(draw: ImageDraw.ImageDraw, corner: tuple[int, int], width: int, name: str, text: str) -> None:
    left, top = corner
    draw.line((left, top, left + width - 1, top), fill=HAIRLINE)
    draw.text((left, top + 9), name, fill=INK, font=_HEAD)
    after = round(_HEAD.getlength(name)) + 12
    draw.text((left + after, top + 11), cut(drawable(text), _TEXT, width - after), fill=SOFT_INK, font=_TEXT)


def _draw_caption(draw: ImageDraw.ImageDraw, corner: tuple[int, int], pattern: Pattern, found: Patterns) -> None:
    """Up to four short lines left of a row; four are closer to each other."""
    lines = [f"{items(found.kind, pattern.count)}, {pattern.share:.1%}", *purity_lines(pattern, found)]
    loose = len(lines) < 3
    left, top = corner[0], corner[1] + (4 if loose else -2)
    first, step = (line_height(_NAME) + 3, line_height(_TEXT) + 1) if loose else (line_height(_NAME), 15)
    draw.text((left, top), f"Prototype {pattern.prototype:,}", fill=INK, font=_NAME)
    for number, line in enumerate(lines):
        at = (left, top + first + number * step)
        draw.text(at, cut(drawable(line), _TEXT, _CAPTION - 10), fill=SOFT_INK, font=_TEXT)


def _paste(sheet: Image.Image, tile: Image.Image | None, corner: tuple[int, int], side: int) -> None:
    if tile is not None:
        sheet.paste(tile, (corner[0] + (side - tile.width) // 2, corner[1] + (side - tile.height) // 2))


def _tile(pictures: Pictures, member: Member, side: int) -> Image.Image | None:
    image = pictures.read(member.index)
    return None if image is None else outlined_tile(image, member, side)


def _pictures(source: Source | Pictures) -> Pictures:
    return source if isinstance(source, Pictures) else Pictures(source)
