"""A sheet of training views: per sample the source with its crops, the masked global views, the local ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.formats.bands import displayable
from ibot_cli.data.sources import Source
from ibot_cli.visualize.lettering import Font, cut, drawable, line_height, short_name, wrapped
from ibot_cli.visualize.palette import hues
from ibot_cli.visualize.scaling import scaled
from ibot_cli.visualize.sheets import HAIRLINE, INK, MAT, PAPER, SOFT_INK
from ibot_cli.visualize.views.result import SamplePixels, SeenSample, SeenView, TrainingViews
from ibot_cli.visualize.views.tiles import masked_view, source_with_boxes

_SIDE = 208  # of a global view
_WIDEST = 320
_MARGIN, _GAP, _BETWEEN, _STROKE = 22, 14, 22, 3
_LOCAL_ROWS = 2
_FONT, _SMALL, _TITLE = 12, 10, 17


def views_sheet(found: TrainingViews, pixels: Sequence[SamplePixels], source: Source) -> Image.Image:
    """All samples, one below the other.

    Boxes in the source and outlines of the views share a colour and a number. Patches that the student does not see
    are grey and hatched.

    Args:
        found: From `training_views`.
        pixels: As found there.
        source: Where the images are.

    Returns:
        Mode `RGB`.
    """
    rows = [_row(sample, part, source) for sample, part in zip(found.samples, pixels, strict=True)]
    width = max(row.width for row in rows) + 2 * _MARGIN
    title_font, font = ImageFont.load_default(_TITLE), ImageFont.load_default(_FONT)
    title = wrapped(drawable(_title(found)), title_font, width - 2 * _MARGIN)
    legend = wrapped(drawable(_legend(found)), font, width - 2 * _MARGIN)
    head = len(title) * line_height(title_font) + len(legend) * line_height(font) + 12
    height = _MARGIN + head + sum(row.height + _BETWEEN for row in rows) - _BETWEEN + _MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw, top = ImageDraw.Draw(sheet), _MARGIN
    for lines, written, colour in ((title, title_font, INK), (legend, font, SOFT_INK)):
        for line in lines:
            draw.text((_MARGIN, top), line, fill=colour, font=written)
            top += line_height(written)
    top += 12
    for row in rows:
        sheet.paste(row, (_MARGIN, top))
        top += row.height + _BETWEEN
    return sheet


@dataclass(frozen=True)
class _Tile:
    """A picture at its final size, with a caption and perhaps an outline."""

    image: Image.Image
    caption: Sequence[str]
    colour: str | None = None


def _row(sample: SeenSample, pixels: SamplePixels, source: Source) -> Image.Image:
    colours = hues(len(sample.views))
    num_global = len(pixels.global_levels)
    tiles = [_source_tile(sample, source, colours)]
    for view, levels, mask, colour in zip(
        sample.views, pixels.global_levels, pixels.masks, colours[:num_global], strict=False
    ):
        tiles.append(_Tile(masked_view(levels, mask, _SIDE), _described(view), colour))
    font = ImageFont.load_default(_FONT)
    height = _SIDE + 6 + 2 * line_height(font) + _STROKE
    locals_ = _locals(sample, pixels, colours[num_global:])
    width = sum(tile.image.width + _GAP for tile in tiles) + (locals_.width if locals_ else -_GAP) + 2 * _STROKE
    row = Image.new("RGB", (width, max(height, locals_.height if locals_ else 0)), PAPER)
    left = _STROKE
    for tile in tiles:
        _place(row, tile, (left, _STROKE + (_SIDE - tile.image.height) // 2), _STROKE + _SIDE, font)
        left += tile.image.width + _GAP
    if locals_:
        row.paste(locals_, (left, 0))
    return row


def _locals(sample: SeenSample, pixels: SamplePixels, colours: Sequence[str]) -> Image.Image | None:
    """The local views in rows that are together as high as a global one."""
    views = [view for view in sample.views if view.kind == "local"]
    if not views:
        return None
    font = ImageFont.load_default(_SMALL)
    caption = line_height(font) + 4
    side = (_SIDE - (_LOCAL_ROWS - 1) * 6) // _LOCAL_ROWS
    columns = -(-len(views) // _LOCAL_ROWS)
    step = side + caption + 6 + _STROKE
    size = columns * (side + 10) + _STROKE, _LOCAL_ROWS * step + _STROKE
    block = Image.new("RGB", size, PAPER)
    for place, (view, levels, colour) in enumerate(zip(views, pixels.local_levels, colours, strict=True)):
        row, column = divmod(place, columns)
        tile = _Tile(scaled(displayable(levels), (side, side)), [_brief(view)], colour)
        corner = _STROKE + column * (side + 10), _STROKE + row * step
        _place(block, tile, corner, corner[1] + side, font)
    return block


def _place(on: Image.Image, tile: _Tile, corner: tuple[int, int], bottom: int, font: Font) -> None:
    """Paste a tile; its outline lies outside of the picture, its caption below `bottom`."""
    left, top = corner
    draw = ImageDraw.Draw(on)
    stroke = 1 if tile.colour is None else _STROKE
    box = left - stroke, top - stroke, left + tile.image.width + stroke - 1, top + tile.image.height + stroke - 1
    draw.rectangle(box, fill=MAT, outline=tile.colour or HAIRLINE, width=stroke)
    on.paste(tile.image, corner)
    for number, text in enumerate(tile.caption):
        line = cut(drawable(text), font, tile.image.width + _STROKE)
        draw.text((left, bottom + 2 + stroke + number * line_height(font)), line, fill=SOFT_INK, font=font)


def _source_tile(sample: SeenSample, source: Source, colours: Sequence[str]) -> _Tile:
    width, height = sample.source_size
    factor = min(_SIDE / height, _WIDEST / width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    try:
        image = source.read(sample.used)
    except UnreadableImage:  # it went away since its views were made
        image = Image.new("RGB", size, MAT)
    stands = f"in place of sample {sample.sample}" if sample.used != sample.sample else f"sample {sample.sample}"
    return _Tile(
        source_with_boxes(image, sample, colours, size), [short_name(sample.path), f"{stands}, {width} x {height}"]
    )


def _described(view: SeenView) -> list[str]:
    """Two lines below a global view."""
    masked = f"masked {view.mask_ratio:.0%}" if view.mask_ratio else "not masked"
    return [f"{view.number}  {_share(view)} of the image, {masked}", ", ".join(_changes(view)) or "unchanged"]


def _brief(view: SeenView) -> str:
    return f"{view.number}  {_share(view)}" + (", flip" if view.flip else "")


def _share(view: SeenView) -> str:
    return f"{view.share:.0%}" if view.share >= 0.005 else "<1%"


def _changes(view: SeenView) -> list[str]:
    named = (
        (view.degrees != 0, f"turned {round(view.degrees)}\N{DEGREE SIGN}"),
        (view.flip, "flip"),
        (view.jitter, "jitter"),
        (view.gray, "grey"),
        (view.blur_radius > 0, f"blur {view.blur_radius:.1f}"),
        (view.solarize, "solarised"),
    )
    return [name for happened, name in named if happened]


def _title(found: TrainingViews) -> str:
    return f"What training sees of {found.data}: epoch {found.epoch}, seed {found.seed}, {_recipe(found)}"


def _recipe(found: TrainingViews) -> str:
    return f"preset {found.preset}" if found.preset else "the recipe chosen for the data"


def _legend(found: TrainingViews) -> str:
    views = found.views
    crops = [f"{views.num_global} global views of {views.global_size} pixels"]
    crops += [f"{views.num_local} local views of {views.local_size}"] if views.num_local else []
    text = f"{' and '.join(crops)}; a box in the image and the view that it became have one colour and number. "
    if found.mask is None:
        return text + "Nothing is masked: the recipe has no patch target."
    return text + f"Hatched patches, {found.masked_share:.0%} on average, are those that the student does not see."
