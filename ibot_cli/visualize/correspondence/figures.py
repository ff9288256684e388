"""Pictures of matches: two images, one pair of views, or a sheet of some pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ibot_cli.visualize.cluster_sheets import RIGHT, WRONG
from ibot_cli.visualize.correspondence.drawing import Panel, Strand, match_figure
from ibot_cli.visualize.correspondence.pairs import ViewPair
from ibot_cli.visualize.correspondence.result import Correspondence, ImageMatches, Match, PairMatches
from ibot_cli.visualize.palette import hues
from ibot_cli.visualize.sheets import stacked

NEAR = "#e0a33a"
_SMALL = 240
_SEVERAL = 4  # from so many figures on, two in a row

Grids = tuple[tuple[int, int], tuple[int, int]]


def image_figure(found: ImageMatches, seen: tuple[Image.Image, Image.Image], *, num: int) -> Image.Image:
    """Two images with their best matches, coloured by where they start.

    Args:
        found: From `match_images`.
        seen: As found there.
        num: Matches to draw at most.
    """
    chosen = best_spread(found.matches, found.grids, num)
    middle = found.grids[0][0] / 2 - 0.5, found.grids[0][1] / 2 - 0.5
    around = sorted(chosen, key=lambda match: math.atan2(match.first[0] - middle[0], match.first[1] - middle[1]))
    strands = [
        _strand(match, found.grids, colour, dashed=False)
        for match, colour in zip(around, hues(len(around)), strict=True)
    ]
    captions = [f"{Path(path).name}, {width} x {height}" for path, (width, height) in _with_sizes(found)]
    title = f"{_shown_of(len(chosen), len(found.matches))}, cosine {_range(chosen)}"
    first, second = (Panel(image=image, caption=text) for image, text in zip(seen, captions, strict=True))
    return match_figure((first, second), strands, title=title if chosen else "No patches are each other's nearest")


def views_figure(found: Correspondence, drawn: Sequence[ViewPair], *, num: int) -> Image.Image:
    """Pairs of views with their best matches: green is right, yellow a neighbour of it, red and dashed wrong.

    Args:
        found: From `match_views`.
        drawn: As found there.
        num: Matches to draw per pair at most.
    """
    listed = [pair for pair in found.pairs if pair.matches is not None]
    alone = len(listed) == 1
    figures = [
        pair_figure(pair, views, num=num, height=400 if alone else _SMALL)
        for pair, views in zip(listed, drawn, strict=True)
    ]
    return stacked(figures, title=_views_title(found), columns=2 if len(figures) >= _SEVERAL else 1)


def pair_figure(pair: PairMatches, views: ViewPair, *, num: int, height: int) -> Image.Image:
    """One pair of views, see `views_figure`."""
    cells = views.grid, views.grid
    chosen = best_spread([match for match in pair.matches or () if match.steps is not None], (cells, cells), num)
    strands = [
        _strand(match, (cells, cells), (RIGHT, NEAR, WRONG)[_grade(match)], dashed=_grade(match) == 2)
        for match in sorted(chosen, key=_grade)  # the right ones on top
    ]
    right = f"{pair.num_right} of {pair.num_queries} patches right"
    panels = (
        Panel(image=views.picture(0), caption=Path(pair.path).name),
        Panel(image=views.picture(1), caption=f"{right}, {pair.num_within_1} within 1"),
    )
    return match_figure(panels, strands, height=height)


def best_spread(matches: Sequence[Match], grids: Grids, num: int) -> list[Match]:
    """The matches of the highest cosine, not all in one corner.

    A match beside a better one, in the first image, waits until no others are left.

    Args:
        matches: Highest cosine first.
        grids: Rows and columns of both images.
        num: At most so many.
    """
    rows, columns = grids[0]
    apart = math.floor(math.sqrt(rows * columns / max(num, 1)) * 0.75)
    chosen: list[Match] = []
    waiting: list[Match] = []
    for match in matches:
        free = all(_apart(match, other) >= apart for other in chosen)
        (chosen if free and len(chosen) < num else waiting).append(match)
    chosen += waiting[: num - len(chosen)]
    return sorted(chosen, key=lambda match: -match.cosine)


def _apart(a: Match, b: Match) -> int:
    return max(abs(a.first[0] - b.first[0]), abs(a.first[1] - b.first[1]))


def _strand(match: Match, grids: Grids, colour: str, *, dashed: bool) -> Strand:
    return Strand(start=_share(match.first, grids[0]), end=_share(match.second, grids[1]), colour=colour, dashed=dashed)


def _share(cell: tuple[int, int], grid: tuple[int, int]) -> tuple[float, float]:
    return (cell[1] + 0.5) / grid[1], (cell[0] + 0.5) / grid[0]


def _grade(match: Match) -> int:
    """0 right, 1 beside it, 2 wrong."""
    return 2 if match.steps is None else min(match.steps, 2)


def _with_sizes(found: ImageMatches) -> list[tuple[str, tuple[int, int]]]:
    return list(zip(found.images, found.sizes, strict=True))


def _shown_of(shown: int, total: int) -> str:
    if shown < total:
        return f"The best {shown} of {total:,} patches that are each other's nearest"
    return f"{total:,} patches that are each other's nearest"


def _range(chosen: Sequence[Match]) -> str:
    if not chosen:
        return ""
    low, high = chosen[-1].cosine, chosen[0].cosine
    return f"{high:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"


def _views_title(found: Correspondence) -> str:
    return (
        f"Right patch found: {found.trained.accuracy:.1%} (within one patch {found.trained.accuracy_within_1:.1%}), "
        f"chance {found.chance.accuracy:.1%}, over {found.views_in_words()}. "
        "Green right, yellow beside it, red dashed wrong."
    )
