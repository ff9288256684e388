"""A strip per image and query: the image, all heads in colours, each head; rows are wrapped where heads are many."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from ibot_cli.visualize.attention.colours import head_colours
from ibot_cli.visualize.attention.mass import HeadFigures, head_figures
from ibot_cli.visualize.attention.panels import attention_panels
from ibot_cli.visualize.palette import hex_colour
from ibot_cli.visualize.sheets import picture_sheet
from ibot_cli.visualize.whole_image import WholeImage

USUAL_MASS = 0.6  # what captions speak of when no threshold is asked for; the authors' default
_PER_ROW, _WIDEST = 8, 2560  # pictures and about how many pixels
_NARROWEST = 120  # place of a picture, so that its caption can be read


def attention_figure(
    whole: WholeImage,
    maps: Tensor,
    *,
    threshold: float | None = None,
    query: tuple[int, int] | None = None,
    title: str | None = None,
    side: int = 240,
    columns: int | None = None,
) -> Image.Image:
    """The strip of one query.

    A head's outline is its colour in the overlay of all heads; its caption says how little of the
    image holds most of its attention.

    Args:
        whole: The image.
        maps: float `[h, rows, columns]`, not negative, from `attention_maps`.
        threshold: As for `attention_panels`.
        query: Row and column of the patch whose attention it is; None for the class token.
        title: A line above.
        side: About the side of each picture, in pixels.
        columns: Pictures per row; default all in one row, or rows of equal length where they are more than 8 or where
            they are so wide that fewer fit.

    Returns:
        Mode `RGB`.
    """
    panels = attention_panels(whole, maps, threshold=threshold, query=query, side=side)
    mass = USUAL_MASS if threshold is None else threshold
    pictures = [panels.image, panels.overlay, *panels.heads]
    width, height = panels.image.size
    return picture_sheet(
        pictures,
        columns=columns or _even(len(pictures), width),
        side=max(width, min(side, _NARROWEST)),
        height=height,
        captions=[
            _of_image(whole),
            "all heads\nstrongest wins",
            *(_of_head(f, mass) for f in head_figures(maps, mass)),
        ],
        outlines=[None, None, *(hex_colour(colour) for colour in head_colours(len(maps)))],
        title=title,
    )


def _even(num: int, width: int) -> int:
    """Columns of rows as equal as can be."""
    most = max(1, min(_PER_ROW, _WIDEST // width))
    return -(-num // -(-num // most))


def _of_image(whole: WholeImage) -> str:
    rows, columns = whole.grid
    return f"{whole.shown.width} x {whole.shown.height} pixels\n{columns} x {rows} patches"


def _of_head(found: HeadFigures, mass: float) -> str:
    share = f"{found.share_for_mass:.0%}" if found.share_for_mass >= 0.005 else "<1%"
    return f"head {found.head}\n{mass:.0%} in {share} of area"
