"""Two pictures side by side and the lines between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ibot_cli.visualize.lettering import cut, drawable, line_height, wrapped
from ibot_cli.visualize.scaling import scaled
from ibot_cli.visualize.sheets import HAIRLINE, INK, PAPER, SOFT_INK

_HEIGHT, _WIDEST = 400, 640
_NARROWEST = 150  # of what a caption has to fit into
_MARGIN, _GAP = 20, 28
_SMOOTH = 3  # lines are drawn this much larger, then made smaller
_DASH, _SPACE = 9.0, 6.0
_CASING = (20, 20, 22, 190)

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A picture and the line below it."""

    image: Image.Image
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Strand:
    """A line from one picture to the other.

    Attributes:
        start: Where in the first: shares of its width and height.
        end: Where in the second.
        colour: `#rrggbb`.
        dashed: Tells it apart without colour.
    """

    start: Point
    end: Point
    colour: str
    dashed: bool = False


def match_figure(
    panels: tuple[Panel, Panel], strands: Sequence[Strand], *, title: str = "", height: int = _HEIGHT
) -> Image.Image:
    """The two pictures at one height, lines between them, and their ends marked.

    A dark rim around each line keeps it visible on any picture.

    Args:
        panels: Left and right.
        strands: Any number; the first lie on top.
        title: Lines above, wrapped to the width.
        height: Of the pictures in pixels; less where one would become too wide.

    Returns:
        Mode `RGB`.
    """
    shown = [_fitted(panel.image, height) for panel in panels]
    tallest = max(image.height for image in shown)
    cells = [max(image.width, _NARROWEST) for image in shown]
    width = 2 * _MARGIN + cells[0] + _GAP + cells[1]
    font, caption_font = ImageFont.load_default(16), ImageFont.load_default(13)
    lines = wrapped(drawable(title), font, width - 2 * _MARGIN)
    top = _MARGIN + (len(lines) * line_height(font) + 8 if lines else 0)
    below = line_height(caption_font) + 6 if any(panel.caption for panel in panels) else 0
    figure = Image.new("RGB", (width, top + tallest + below + _MARGIN), PAPER)
    draw = ImageDraw.Draw(figure)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + number * line_height(font)), line, fill=INK, font=font)
    corners = []
    for place, (panel, image) in enumerate(zip(panels, shown, strict=True)):
        left = _MARGIN + place * (cells[0] + _GAP)
        corner = left, top + (tallest - image.height) // 2
        draw.rectangle((left - 1, corner[1] - 1, left + image.width, corner[1] + image.height), outline=HAIRLINE)
        figure.paste(image, corner)
        text = cut(drawable(panel.caption), caption_font, cells[place])
        draw.text((left, top + tallest + 6), text, fill=SOFT_INK, font=caption_font)
        corners.append(corner)
    ends = [
        (_placed(strand.start, corners[0], shown[0]), _placed(strand.end, corners[1], shown[1])) for strand in strands
    ]
    return _overlaid(figure, strands, ends)


def _fitted(image: Image.Image, height: int) -> Image.Image:
    """The picture at that height, or less if it is wide; small ones are enlarged without blur."""
    factor = min(height / image.height, _WIDEST / image.width)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return scaled(image, size)


def _placed(share: Point, corner: tuple[int, int], image: Image.Image) -> Point:
    return corner[0] + share[0] * image.width, corner[1] + share[1] * image.height


def _overlaid(figure: Image.Image, strands: Sequence[Strand], ends: Sequence[tuple[Point, Point]]) -> Image.Image:
    """The figure with smooth lines; each with its rim, so that crossings stay readable."""
    layer = Image.new("RGBA", (figure.width * _SMOOTH, figure.height * _SMOOTH), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    for strand, (start, end) in reversed(list(zip(strands, ends, strict=True))):
        pieces = _dashes(start, end) if strand.dashed else [(start, end)]
        for colour, width in ((_CASING, 3.6), (strand.colour, 1.8)):
            for piece in pieces:
                line = [(x * _SMOOTH, y * _SMOOTH) for x, y in piece]
                draw.line(line, fill=colour, width=round(width * _SMOOTH))
        for point in (start, end):
            _mark(draw, point, strand.colour)
    small = layer.convert("RGBa").resize(figure.size, Image.Resampling.BOX).convert("RGBA")
    return Image.alpha_composite(figure.convert("RGBA"), small).convert("RGB")


def _mark(draw: ImageDraw.ImageDraw, point: Point, colour: str) -> None:
    for radius, fill in ((5.6, _CASING), (4.6, "#ffffff"), (3.2, colour)):
        x, y, r = point[0] * _SMOOTH, point[1] * _SMOOTH, radius * _SMOOTH
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def _dashes(start: Point, end: Point) -> list[tuple[Point, Point]]:
    length = ((end[0] - start[0]) ** 2 + (end[1] - start[1]) ** 2) ** 0.5
    if length == 0:
        return []
    count = max(1, round((length + _SPACE) / (_DASH + _SPACE)))
    period = (length + _SPACE) / count

    def at(distance: float) -> Point:
        share = min(distance / length, 1.0)
        return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])

    return [(at(number * period), at((number + 1) * period - _SPACE)) for number in range(count)]
