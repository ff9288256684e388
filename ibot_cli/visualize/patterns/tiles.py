"""Cut-outs around patches, from the source image itself."""

from __future__ import annotations

from collections import OrderedDict

from PIL import Image, ImageDraw

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.sources import Source
from ibot_cli.visualize.patterns.result import Box, Member
from ibot_cli.visualize.sheets import MAT

INNER, OUTER = "#ffffff", "#111111"  # one of them stands out against any picture
_SHARP = 3  # enlarged by more than that, pixels are shown as they are
_OVERSAMPLING = 4
_KEPT_PIXELS = 64_000_000


class Pictures:
    """Images of a source, the latest ones kept, since neighbouring figures show the same.

    Args:
        source: The images.
        kept: About so many pixels at most; the latest image is kept whatever its size.
    """

    def __init__(self, source: Source, kept: int = _KEPT_PIXELS) -> None:
        self._source, self._limit = source, kept
        self._images: OrderedDict[int, Image.Image] = OrderedDict()
        self._pixels = 0

    def read(self, index: int) -> Image.Image | None:
        """The image in mode `RGB`, or None where it has become unreadable since."""
        if index in self._images:
            self._images.move_to_end(index)
            return self._images[index]
        try:
            image = self._source.read(index).convert("RGB")
        except UnreadableImage:
            return None
        self._images[index] = image
        self._pixels += image.width * image.height
        while self._pixels > self._limit and len(self._images) > 1:
            _, oldest = self._images.popitem(last=False)
            self._pixels -= oldest.width * oldest.height
        return image


def tile_size(window: Box, side: int) -> tuple[int, int]:
    """Width and height of a cut-out whose longer side is `side`."""
    width, height = window[2] - window[0], window[3] - window[1]
    longer = max(width, height)
    return max(1, round(side * width / longer)), max(1, round(side * height / longer))


def cut_tile(image: Image.Image, window: Box, seen: Box, side: int, *, clear: bool = False) -> Image.Image:
    """The window of an image, at the image's own resolution as far as `side` allows.

    Reduced or slightly enlarged it is smooth; enlarged by more it shows sharp pixels. What the network did not see is
    mat.

    Args:
        image: The source image.
        window: Left, top, right, bottom in its pixels; fractions count, and it may stick out.
        seen: What the network saw, likewise.
        side: Of the longer side of the result, in pixels.
        clear: Whether what was not seen is transparent instead.

    Returns:
        Mode `RGB`, or `RGBA` where something is transparent.
    """
    size = tile_size(window, side)
    whole = _inside(window, seen) == window
    tile = Image.new("RGBA", size) if clear and not whole else Image.new("RGB", size, MAT)
    part = _inside(window, (max(seen[0], 0), max(seen[1], 0), min(seen[2], image.width), min(seen[3], image.height)))
    if part is None:
        return tile
    left, top, right, bottom = placed(part, window, size)
    if right > left and bottom > top:
        tile.paste(_resized(image, part, (right - left, bottom - top)), (left, top))
    return tile


def placed(box: Box, window: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where a box of the source lies on the cut-out of `window` with that size, in whole pixels."""
    across, down = size[0] / (window[2] - window[0]), size[1] / (window[3] - window[1])
    left, right = ((edge - window[0]) * across for edge in (box[0], box[2]))
    top, bottom = ((edge - window[1]) * down for edge in (box[1], box[3]))
    return round(left), round(top), round(right), round(bottom)


def outlined_tile(image: Image.Image, member: Member, side: int) -> Image.Image:
    """The window of a member with a thin double line around its patch; no pixel of the patch is covered.

    Where patch and window are the same there is no line.
    """
    tile = cut_tile(image, member.window, member.seen, side)
    if member.box != member.window and member.row is not None:
        draw_outline(tile, placed(member.box, member.window, tile.size))
    return tile


def draw_outline(tile: Image.Image, box: tuple[int, int, int, int]) -> None:
    """A light line right outside the box, and a dark one around it."""
    left, top, right, bottom = box
    draw = ImageDraw.Draw(tile)
    draw.rectangle((left - 1, top - 1, right, bottom), outline=INNER)
    draw.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=OUTER)


def _inside(box: Box, limits: Box) -> Box | None:
    left, top = max(box[0], limits[0]), max(box[1], limits[1])
    right, bottom = min(box[2], limits[2]), min(box[3], limits[3])
    return (left, top, right, bottom) if right > left and bottom > top else None


def _resized(image: Image.Image, part: Box, size: tuple[int, int]) -> Image.Image:
    if size[0] <= _SHARP * (part[2] - part[0]):
        return image.resize(size, Image.Resampling.LANCZOS, box=part)
    # nearest alone would make some pixels wider than others
    larger = (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING)
    return image.resize(larger, Image.Resampling.NEAREST, box=part).reduce(_OVERSAMPLING)
