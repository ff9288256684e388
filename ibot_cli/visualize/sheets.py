"""Many images on one sheet, with captions, outlines and a title."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ibot_cli.visualize.lettering import Font, cut, drawable, line_height, wrapped
from ibot_cli.visualize.scaling import scaled

PAPER, MAT, HAIRLINE = "#f7f7f5", "#e6e6e2", "#d2d2cd"
INK, SOFT_INK = "#1d1d1f", "#4a4a4f"
_CAPTION_LINES = 2
_NARROWEST = 240  # of what a title has to fit into
_STACK_MARGIN = 20  # of the title above stacked figures
_SPREAD = 1.5  # columns to rows, about


def picture_sheet(
    images: Sequence[Image.Image | None],
    *,
    columns: int | None = None,
    side: int = 96,
    height: int | None = None,
    captions: Sequence[str] | None = None,
    outlines: Sequence[str | None] | None = None,
    title: str | None = None,
    row_titles: Sequence[str] | None = None,
) -> Image.Image:
    """A grid of images on light paper, row by row.

    Each image keeps its shape and fills its place; those of less than half its size are enlarged without blur.

    Args:
        images: At least one, of any size and mode; None leaves its place empty.
        columns: Of the grid; default a few more than there are rows.
        side: Width of each place, in pixels.
        height: Of each place, in pixels; default a square.
        captions: A text per image, drawn below it on at most two lines and cut to fit; newlines are kept.
        outlines: A colour (name or `#rrggbb`) per image, or None for a hairline.
        title: A line or more above the grid.
        row_titles: A line above each row of the grid, cut to fit.

    Returns:
        Mode `RGB`.

    Raises:
        ValueError: No image, a size below 1, an unknown colour, or not as many captions or outlines as images, or
            row titles as rows.
    """
    for name, texts in (("captions", captions), ("outlines", outlines)):
        if texts is not None and len(texts) != len(images):
            raise ValueError(f"{len(texts)} {name} for {len(images)} images")
    place_size = (side, side if height is None else height)
    if len(images) == 0 or min(place_size) < 1 or (columns is not None and columns < 1):
        raise ValueError(f"{len(images)} images of side {side} in {columns} columns")
    layout = _layout(len(images), columns, place_size, captions, outlines, title, row_titles)
    sheet = Image.new("RGB", (layout.width, layout.height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for line, text in enumerate(layout.title):
        draw.text((layout.margin, layout.margin + line * layout.title_step), text, fill=INK, font=layout.title_font)
    for row, text in enumerate(layout.row_titles):
        draw.text((layout.margin, layout.row_top(row)), text, fill=SOFT_INK, font=layout.caption_font)
    for place, image in enumerate(images):
        if image is None:
            continue
        left, top = layout.corner(place)
        _draw_frame(draw, (left, top), layout, None if outlines is None else outlines[place])
        sheet.paste(_fitted(image, place_size), (left, top))
        for line, text in enumerate(layout.captions[place]):
            spot = (left + side / 2, top + layout.picture_height + layout.caption_gap + line * layout.caption_step)
            draw.text(spot, text, fill=SOFT_INK, font=layout.caption_font, anchor="ma")
    return sheet


def stacked(figures: Sequence[Image.Image], *, title: str = "", columns: int = 1) -> Image.Image:
    """Figures, each with margins of its own, on one sheet: row by row, below a title.

    Args:
        figures: At least one.
        title: Lines above.
        columns: Figures per row.

    Returns:
        Mode `RGB`.
    """
    widths = [max(figure.width for figure in figures[column::columns]) for column in range(min(columns, len(figures)))]
    rows = [figures[start : start + columns] for start in range(0, len(figures), columns)]
    heights = [max(figure.height for figure in row) for row in rows]
    font = ImageFont.load_default(18)
    lines = wrapped(drawable(title), font, sum(widths) - 2 * _STACK_MARGIN)
    top = _STACK_MARGIN + len(lines) * line_height(font) if lines else 0
    sheet = Image.new("RGB", (sum(widths), top + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((_STACK_MARGIN, _STACK_MARGIN + number * line_height(font)), line, fill=INK, font=font)
    for row, entries in enumerate(rows):
        for column, figure in enumerate(entries):
            sheet.paste(figure, (sum(widths[:column]), top + sum(heights[:row])))
    return sheet


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where everything goes, in pixels."""

    side: int
    picture_height: int
    columns: int
    margin: int
    gap: int
    stroke: int
    width: int
    height: int
    top: int
    cell_height: int
    title: tuple[str, ...]
    title_font: Font
    title_step: int
    captions: tuple[tuple[str, ...], ...]
    caption_font: Font
    caption_step: int
    caption_gap: int
    row_titles: tuple[str, ...]
    row_step: int

    def row_top(self, row: int) -> int:
        """Upper edge of a row, its title included."""
        return self.top + row * (self.row_step + self.cell_height + self.gap)

    def corner(self, place: int) -> tuple[int, int]:
        """Upper left corner of an image's place."""
        row, column = divmod(place, self.columns)
        return self.margin + column * (self.side + self.gap), self.row_top(row) + self.row_step


def _layout(
    num: int,
    columns: int | None,
    place_size: tuple[int, int],
    captions: Sequence[str] | None,
    outlines: Sequence[str | None] | None,
    title: str | None,
    row_titles: Sequence[str] | None,
) -> _Layout:
    side, height = place_size
    text_side = min(side, round(math.sqrt(side * height)))  # a long low place has no larger letters than others
    columns = min(columns or _balanced(num), num)
    rows = -(-num // columns)
    if row_titles is not None and len(row_titles) != rows:
        raise ValueError(f"{len(row_titles)} row titles for {rows} rows")
    stroke = max(3, text_side // 32) if outlines is not None and any(outlines) else 1
    margin, gap = max(12, text_side // 6), max(6, text_side // 12) + 2 * (stroke - 1)
    width = 2 * margin + columns * side + (columns - 1) * gap
    title_font = ImageFont.load_default(max(14, text_side // 6))
    heading = () if not title else wrapped(drawable(title), title_font, max(width, _NARROWEST) - 2 * margin)
    width = max(width, _NARROWEST) if heading or row_titles else width
    caption_font = ImageFont.load_default(max(10, text_side // 8))
    texts = tuple(_caption(text, caption_font, side + gap - 4) for text in captions or [""] * num)
    caption_step, caption_gap = line_height(caption_font), 3 + stroke
    lines = max(map(len, texts))
    cell_height = height + (caption_gap + lines * caption_step if lines else 0)
    title_step = line_height(title_font)
    top = margin + (len(heading) * title_step + margin // 2 if heading else 0)
    row_step = line_height(caption_font) + stroke + 1 if row_titles else 0
    return _Layout(
        side=side,
        picture_height=height,
        columns=columns,
        margin=margin,
        gap=gap,
        stroke=stroke,
        width=width,
        height=top + rows * (row_step + cell_height) + (rows - 1) * gap + margin,
        top=top,
        cell_height=cell_height,
        title=heading,
        title_font=title_font,
        title_step=title_step,
        captions=texts,
        caption_font=caption_font,
        caption_step=caption_step,
        caption_gap=caption_gap,
        row_titles=tuple(cut(drawable(text), caption_font, width - 2 * margin) for text in row_titles or ()),
        row_step=row_step,
    )


def _balanced(num: int) -> int:
    """Columns of a wide grid whose last row is as full as can be."""
    rows = -(-num // math.ceil(math.sqrt(_SPREAD * num)))
    return -(-num // rows)


def _draw_frame(draw: ImageDraw.ImageDraw, corner: tuple[int, int], layout: _Layout, colour: str | None) -> None:
    """A line around an image's place, outside of it, so that no pixel of the image is covered."""
    left, top = corner
    stroke = layout.stroke if colour else 1
    right, bottom = left + layout.side + stroke - 1, top + layout.picture_height + stroke - 1
    box = (left - stroke, top - stroke, right, bottom)
    draw.rectangle(box, fill=MAT, outline=colour or HAIRLINE, width=stroke)


def _fitted(image: Image.Image, place_size: tuple[int, int]) -> Image.Image:
    """The image, as large as its place allows, centred on a mat."""
    width, height = place_size
    scale = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = scaled(image, size)
    mat = Image.new("RGB", place_size, MAT)
    mat.paste(image, ((width - size[0]) // 2, (height - size[1]) // 2))
    return mat


def _caption(text: str, font: Font, width: int) -> tuple[str, ...]:
    """At most two lines, the last one cut where more was to come."""
    lines = [line for part in drawable(text).splitlines() for line in wrapped(part, font, width)]
    if len(lines) <= _CAPTION_LINES:
        return tuple(lines)
    return (*lines[: _CAPTION_LINES - 1], cut(" ".join(lines[_CAPTION_LINES - 1 :]), font, width))
