"""The page of patterns: grids to look around in, and behind each patch the image that it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

from PIL import Image

from ibot_cli.visualize.pages import inline_image, render_page
from ibot_cli.visualize.pages.picture import SHARP_UP_TO
from ibot_cli.visualize.patterns.purity_table import purity_columns, purity_notes, purity_rows
from ibot_cli.visualize.patterns.result import Member, Pattern, Patterns
from ibot_cli.visualize.patterns.tiles import Pictures, cut_tile
from ibot_cli.visualize.patterns.wording import (
    agreement,
    beside_title,
    class_name,
    explanation,
    headline,
    item,
    items,
    measured,
    probable,
    purity_text,
)

MOST_TILES = 1500  # of the whole page
_FEWEST_EACH = 8
_TILE_SIDES, _TILE_BYTES, _TILE_QUALITY = (192, 160, 136), 5_000_000, 74
_SOURCE_SIDES, _SOURCE_BYTES, _SOURCE_QUALITY = (640, 512, 384, 320, 256, 192, 160), 4_300_000, 78
_SAMPLES = 12


@dataclass(frozen=True, kw_only=True)
class _Tile:
    key: str
    uri: str | None
    name: str


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """One pattern on the page."""

    key: str
    pattern: Pattern
    count: str
    probability: str
    purity: str | None
    tiles: tuple[_Tile, ...]


def patterns_page(pictures: Pictures, found: Patterns, *, beside: Patterns | None = None) -> str:
    """A whole HTML page, below about 10 MB; its fragment `#patch-3-7` opens the seventh patch of the third pattern.

    Every source image is in it once, as far reduced as their number makes necessary.

    Args:
        pictures: Where the images are; one that has become unreadable since leaves its place empty.
        found: The patterns.
        beside: Those of random weights, or None; theirs are `#random-3-7`.
    """
    blocks = {"patch": found} if beside is None else {"patch": found, "random": beside}
    each = max(_FEWEST_EACH, MOST_TILES // sum(len(block.patterns) for block in blocks.values()))
    members = [member for block in blocks.values() for pattern in block.patterns for member in pattern.members[:each]]
    side = _tile_side(pictures, members)
    shown = {prefix: _shown(pictures, block, prefix, each, side) for prefix, block in blocks.items()}
    images = _source_images(pictures, sorted({member.index for member in members}))
    return render_page(
        "patterns.html",
        title=headline(found),
        lead=explanation(found),
        found=found,
        each=each,
        thing=item(found.kind),
        things=items(found.kind),
        measured=measured(found),
        beside_title=None if beside is None else beside_title(beside),
        agreements=[agreement(block) for block in blocks.values()],
        pairs=list(zip_longest(*shown.values())),
        columns=purity_columns(found.kind),
        purities=None if found.purity is None else purity_rows(found.purity),
        purity_text=None if found.purity is None else " ".join(purity_notes(found.purity, found.kind)),
        notes=(*found.warnings, *found.notes),
        data={"images": images, "members": _facts(blocks, each), "grid": found.grid},
    )


def _shown(pictures: Pictures, block: Patterns, prefix: str, each: int, side: int) -> list[_Shown]:
    return [
        _Shown(
            key=f"{prefix}-{rank}",
            pattern=pattern,
            count=items(block.kind, pattern.count),
            probability=probable(pattern.probability),
            purity=purity_text(pattern, block),
            tiles=tuple(
                _Tile(key=f"{prefix}-{rank}-{place}", uri=_tile(pictures, member, side), name=_name(member, block))
                for place, member in enumerate(pattern.members[:each], start=1)
            ),
        )
        for rank, pattern in enumerate(block.patterns, start=1)
    ]


def _name(member: Member, block: Patterns) -> str:
    """What a screen reader says, and a tooltip."""
    label = class_name(member.label, block)
    what = "Image" if member.row is None else f"Patch in row {member.row + 1}, column {(member.column or 0) + 1}"
    known = "" if label is None else f", class {label}"
    return f"{what} of {member.path}{known}, probability {probable(member.probability)}"


def _facts(blocks: Mapping[str, Patterns], each: int) -> dict[str, dict[str, Any]]:
    """What the enlarged view tells, by key."""
    return {
        f"{prefix}-{rank}-{place}": {
            "image": member.index,
            "path": member.path,
            "class": class_name(member.label, block),
            "row": member.row,
            "column": member.column,
            "score": round(member.score, 4),
            "probability": float(f"{member.probability:.3g}"),
            "prototype": pattern.prototype,
            "box": _rounded(member.box),
            "window": _rounded(member.window),
            "seen": _rounded(member.seen),
        }
        for prefix, block in blocks.items()
        for rank, pattern in enumerate(block.patterns, start=1)
        for place, member in enumerate(pattern.members[:each], start=1)
    }


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(edge, 2) for edge in box]


def _tile(pictures: Pictures, member: Member, side: int) -> str | None:
    image = pictures.read(member.index)
    if image is None:
        return None
    return inline_image(cut_tile(image, member.window, member.seen, side, clear=True), quality=_TILE_QUALITY)


def _tile_side(pictures: Pictures, members: Sequence[Member]) -> int:
    """The largest side with which all tiles together are of reasonable size, judged by some of them."""
    some = members[:: -(-len(members) // _SAMPLES)]
    for side in _TILE_SIDES:
        tiles = [len(_tile(pictures, member, side) or "") for member in some]
        if sum(tiles) / len(tiles) * len(members) <= _TILE_BYTES:
            break
    return side


def _source_images(pictures: Pictures, indices: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Each image once, with its true size: the page counts in source pixels."""
    some = [image for index in indices[:: -(-len(indices) // _SAMPLES)] if (image := pictures.read(index)) is not None]
    for longest in _SOURCE_SIDES:
        inline = partial(_inline, longest=longest)
        if sum(len(inline(image)) for image in some) / max(1, len(some)) * len(indices) <= _SOURCE_BYTES:
            break
    found = {}
    for index in indices:
        image = pictures.read(index)
        if image is not None:
            sharp = max(image.size) <= SHARP_UP_TO
            found[index] = {"uri": inline(image), "width": image.width, "height": image.height, "sharp": sharp}
    return found


def _inline(image: Image.Image, longest: int) -> str:
    return inline_image(image, longest=longest, quality=_SOURCE_QUALITY)
