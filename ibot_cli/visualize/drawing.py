"""A few marks on a page, as SVG text or as pixels; no more than the charts here need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]
_PILLOW_ANCHOR = {"start": "ls", "middle": "ms", "end": "rs"}
_OVERSAMPLING = 2


@dataclass(frozen=True)
class Line:
    """A line through points, in pixels from the upper left corner."""

    points: Sequence[Point]
    colour: str
    width: float = 1


@dataclass(frozen=True)
class Shape:
    """A filled polygon."""

    points: Sequence[Point]
    colour: str


@dataclass(frozen=True)
class Label:
    """A line of text; `y` is its base line."""

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    colour: str = "#444444"
    size: int = 13


Mark = Line | Shape | Label


@dataclass(frozen=True)
class Drawing:
    """Marks on white, later ones on top; sizes in pixels."""

    width: int
    height: int
    marks: Sequence[Mark]


def svg(drawing: Drawing) -> str:
    """The drawing as a self-contained SVG document; every text is escaped."""
    box = f'viewBox="0 0 {drawing.width} {drawing.height}" width="{drawing.width}" height="{drawing.height}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif">']
    lines += [f'<rect width="{drawing.width}" height="{drawing.height}" fill="#ffffff"/>']
    return "\n".join([*lines, *map(_element, drawing.marks), "</svg>", ""])


def pixels(drawing: Drawing, scale: int = 2) -> Image.Image:
    """The drawing as an RGB image, `scale` times its size; smooth edges."""
    factor = scale * _OVERSAMPLING
    image = Image.new("RGB", (drawing.width * factor, drawing.height * factor), "#ffffff")
    brush = ImageDraw.Draw(image)
    for mark in drawing.marks:
        _paint(brush, mark, factor)
    return image.resize((drawing.width * scale, drawing.height * scale), Image.Resampling.LANCZOS)


def _element(mark: Mark) -> str:
    if isinstance(mark, Label):
        place = f'x="{mark.x:.1f}" y="{mark.y:.1f}" text-anchor="{mark.anchor}"'
        return f'<text {place} fill="{mark.colour}" font-size="{mark.size}">{escape(mark.text)}</text>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
    if isinstance(mark, Shape):
        return f'<polygon points="{points}" fill="{mark.colour}"/>'
    style = f'fill="none" stroke="{mark.colour}" stroke-width="{mark.width}" stroke-linejoin="round"'
    return f'<polyline points="{points}" {style}/>'


def _paint(brush: ImageDraw.ImageDraw, mark: Mark, factor: int) -> None:
    if isinstance(mark, Label):
        font = ImageFont.load_default(mark.size * factor)
        place = (mark.x * factor, mark.y * factor)
        # the built-in bitmap font of a Pillow without FreeType knows no anchors
        anchor = _PILLOW_ANCHOR[mark.anchor] if isinstance(font, ImageFont.FreeTypeFont) else None
        brush.text(place, mark.text, fill=mark.colour, font=font, anchor=anchor)
        return
    points = [(x * factor, y * factor) for x, y in mark.points]
    if isinstance(mark, Shape):
        brush.polygon(points, fill=mark.colour)
    else:
        brush.line(points, fill=mark.colour, width=max(1, round(mark.width * factor)), joint="curve")
