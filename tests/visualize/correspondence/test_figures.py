"""Pictures of matches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from ibot_cli.data.decode import PixelFormat
from ibot_cli.data.files import FileSource
from ibot_cli.visualize.cluster_sheets import RIGHT, WRONG
from ibot_cli.visualize.correspondence.drawing import Panel, Strand, match_figure
from ibot_cli.visualize.correspondence.figures import best_spread, image_figure, views_figure
from ibot_cli.visualize.correspondence.result import ImageMatches, Match
from ibot_cli.visualize.correspondence.views import ViewOptions, match_views
from ibot_cli.visualize.palette import hues
from tests.visualize.correspondence.known import ByColour, ByPlace, loaded, write_map

BLACK = Image.new("RGB", (100, 100))


def match(row: int, column: int, cosine: float, steps: int | None = None) -> Match:
    cell = row, column
    return Match(cosine=cosine, first=cell, second=cell, first_point=(0, 0), second_point=(0, 0), steps=steps)


def share(image: Image.Image, colour: str) -> float:
    return float((np.abs(np.asarray(image).astype(int) - ImageColor.getrgb(colour)).max(axis=2) < 12).mean())


def test_ends_are_marked_at_their_places() -> None:
    """Both pictures are 400 high; the left one begins 20 from the edge, the right one 28 after it."""
    strands = [Strand(start=(0.25, 0.5), end=(0.75, 0.1), colour="#ff0000")]
    figure = match_figure((Panel(image=BLACK), Panel(image=BLACK)), strands)
    assert figure.size == (20 + 400 + 28 + 400 + 20, 20 + 400 + 20)
    assert figure.getpixel((20 + 100, 20 + 200)) == (255, 0, 0) == figure.getpixel((448 + 300, 20 + 40))
    middle = ((20 + 100 + 448 + 300) // 2, 20 + 120)
    red, green, blue = figure.getpixel(middle)  # type: ignore[misc]
    assert red > 180 and max(green, blue) < 60
    assert figure.getpixel((30, 30)) == (0, 0, 0)


def test_dashes_leave_gaps() -> None:
    def red(dashed: bool) -> float:
        strand = Strand(start=(0.5, 0.5), end=(0.5, 0.5), colour="#ff0000", dashed=dashed)
        return share(match_figure((Panel(image=BLACK), Panel(image=BLACK)), [strand]), "#ff0000")

    assert 0 < red(True) < red(False)


def test_wide_and_tall_pictures_fit() -> None:
    wide, tall = Panel(image=Image.new("L", (3000, 300)), caption="wide"), Panel(image=Image.new("L", (10, 900)))
    figure = match_figure((wide, tall), [])
    assert figure.width == 20 + 640 + 28 + 150 + 20 and 440 < figure.height < 480


def test_two_images(tmp_path: Path) -> None:
    found = ImageMatches(
        weights="w", weights_hash="h", images=("a.png", "b.png"), sizes=((9, 9), (9, 9)), grids=((4, 4), (4, 4)),
        seen=((0, 0, 9, 9), (0, 0, 9, 9)), matches=(match(0, 0, 0.9), match(3, 3, 0.8)),
    )  # fmt: skip
    both = image_figure(found, (BLACK, BLACK), num=5)
    for colour in hues(2):
        assert share(both, colour) > 0
    one = image_figure(found, (BLACK, BLACK), num=1)
    assert np.asarray(one)[400:].max() > 0 and share(one, hues(2)[1]) == 0
    empty = image_figure(ImageMatches(**{**vars(found), "matches": ()}), (BLACK, BLACK), num=5)
    assert empty.size == both.size


@pytest.mark.parametrize(("network", "colour", "other"), [(ByColour(), RIGHT, WRONG), (ByPlace(), WRONG, RIGHT)])
def test_right_and_wrong(tmp_path: Path, network: ByColour, colour: str, other: str) -> None:
    names = [write_map(tmp_path / f"{number}.png") for number in range(5)]
    source = FileSource(name="maps", root=Path(), names=names, pixels=PixelFormat())
    found, drawn = match_views(loaded(network), source, ViewOptions(shown=5, baselines=False, seed=3))
    figure = views_figure(found, drawn, num=8)
    assert figure.width > 2 * 500 and figure.height > 3 * 240  # two in a row
    assert share(figure, colour) > 2 * share(figure, other)


def test_the_best_do_not_crowd() -> None:
    matches = [match(0, 0, 0.9), match(0, 1, 0.8), match(7, 7, 0.7), match(1, 1, 0.6)]
    grids = (8, 8), (8, 8)
    assert [m.cosine for m in best_spread(matches, grids, 2)] == [0.9, 0.7]
    assert [m.cosine for m in best_spread(matches, grids, 3)] == [0.9, 0.8, 0.7]
    assert len(best_spread(matches, grids, 9)) == 4 and best_spread([], grids, 3) == []
