import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageColor

from ibot_cli.visualize.patterns import sheets
from ibot_cli.visualize.patterns.result import Pattern, Patterns
from ibot_cli.visualize.patterns.sheets import PER_ROW, overview_sheet, pattern_sheet
from ibot_cli.visualize.patterns.tiles import INNER
from ibot_cli.visualize.sheets import PAPER
from tests.visualize.patterns.coloured import Painting, Paintings, random_paintings
from tests.visualize.patterns.paintings import RAGGED, RGB, UNLABELLED, colour, find, near, other

SIDE = 96
MARGIN, GAP = 16, 8  # of `picture_sheet` at that side


def middles(sheet: Image.Image, pattern: Pattern) -> list[tuple[float, float]]:
    """The middle of each member's place, counted from the lower edge, since the height of the title is unknown."""
    columns = math.ceil(math.sqrt(len(pattern.members)))
    rows = -(-len(pattern.members) // columns)
    top = sheet.height - MARGIN - rows * SIDE - (rows - 1) * GAP
    step = SIDE + GAP
    return [
        (MARGIN + (place % columns) * step + SIDE / 2, top + place // columns * step + SIDE / 2)
        for place in range(len(pattern.members))
    ]


def check_colours(source: Paintings, found: Patterns) -> None:
    for pattern in found.patterns:
        sheet = pattern_sheet(source, pattern, found, side=SIDE)
        for x, y in middles(sheet, pattern):
            assert near(colour(sheet, x, y), RGB[pattern.prototype])


def test_each_sheet_shows_its_colour_in_every_middle() -> None:
    check_colours(RAGGED, find())
    check_colours(RAGGED, find(window=1))
    source = random_paintings(20, letters="rgbyc", seed=3)
    found = find(source, top_k=9)
    assert all(len(pattern.members) == 9 for pattern in found.patterns)
    check_colours(source, found)


def test_the_title_says_whose_pattern_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    drawn = sheets.picture_sheet
    monkeypatch.setattr(
        sheets, "picture_sheet", lambda *args, **named: titles.append(named["title"]) or drawn(*args, **named)
    )
    found = find()
    pattern_sheet(RAGGED, found.patterns[0], found)
    pattern_sheet(RAGGED, found.patterns[0], found, of="Random weights (seed 0)")
    assert titles[0].startswith("Prototype ") and titles[1] == f"Random weights (seed 0): {titles[0]}"


def test_the_patch_is_outlined_and_whole() -> None:
    found = find()
    pattern = next(pattern for pattern in found.patterns if pattern.prototype == 0)
    sheet = pattern_sheet(RAGGED, pattern, found, side=SIDE)
    x, y = middles(sheet, pattern)[0]
    for by in (-15, 14):  # a third of the window is 32 pixels wide
        assert near(colour(sheet, x + by, y + by), RGB[0])
    assert colour(sheet, x - 17, y) == colour(sheet, x + 16, y) == ImageColor.getrgb(INNER)


def test_neighbours_of_the_patch_are_where_they_are_in_the_image() -> None:
    source = Paintings(["ryyy gbyy yyyy yyyy"])
    found = find(source)
    pattern = next(pattern for pattern in found.patterns if pattern.prototype == 2)  # blue in row 1, column 1
    sheet = pattern_sheet(source, pattern, found, side=SIDE)
    ((x, y),) = middles(sheet, pattern)
    assert near(colour(sheet, x - 36, y - 36), RGB[0]) and near(colour(sheet, x - 36, y), RGB[1])
    assert near(colour(sheet, x + 36, y), RGB[3]) and near(colour(sheet, x, y + 36), RGB[3])


def test_fewer_images_than_places() -> None:
    found = find(top_k=100)
    assert max(len(pattern.members) for pattern in found.patterns) <= len(RAGGED)
    wide = [pattern_sheet(RAGGED, pattern, found).width for pattern in found.patterns]
    assert min(wide) >= 240  # room for a title, even above one image


def test_an_image_that_went_away_leaves_its_place_empty() -> None:
    found = find()
    gone = Paintings([Painting("r")] * 3, bad=[0])
    red = next(pattern for pattern in found.patterns if pattern.prototype == 0)
    assert red.members[0].index == 0
    sheet = pattern_sheet(gone, red, found, side=SIDE)
    assert colour(sheet, *middles(sheet, red)[0]) == ImageColor.getrgb(PAPER)


def test_the_overview_has_a_row_per_pattern() -> None:
    source = random_paintings(20, letters="rgbyc", seed=3)
    found = find(source)
    sheet = np.asarray(overview_sheet(source, found, side=60))
    height, step = sheet.shape[0], 66
    top = height - 22 - 5 * step + 6
    for row, pattern in enumerate(found.patterns):
        for column in range(PER_ROW):
            x, y = 22 + 176 + column * step + 30, top + row * step + 30
            assert near(tuple(sheet[y, x]), RGB[pattern.prototype]), (row, column)
    assert sheet.shape[1] == 22 + 176 + PER_ROW * step - 6 + 22


def test_two_classes_stay_beside_their_row() -> None:
    found = find()
    other_class = replace(found.patterns[0], members_label=0, members_purity=0.5)
    sheet = np.asarray(overview_sheet(RAGGED, replace(found, patterns=(other_class, found.patterns[1]))))
    top = sheet.shape[0] - 22 - 64 - 70
    inked = np.flatnonzero((sheet[:, 22:190] != ImageColor.getrgb(PAPER)).any(axis=(1, 2)))
    assert ((inked > top) & (inked < top + 66)).sum() > 35  # four lines
    assert not ((inked >= top + 66) & (inked < top + 72)).any()  # above the next row


def test_random_weights_stand_beside_in_rows_of_their_own() -> None:
    found = find()
    beside = other(found)
    alone, both = overview_sheet(RAGGED, found, side=60), overview_sheet(RAGGED, found, beside=beside, side=60)
    width = 176 + PER_ROW * 66 - 6
    assert both.width == alone.width + 44 + width
    top = both.height - 22 - len(found.patterns) * 66 + 6
    for row, pattern in enumerate(beside.patterns):
        middle = 22 + width + 44 + 176 + 30
        assert near(colour(both, middle, top + row * 66 + 30), RGB[pattern.prototype])
    last = colour(both, 22 + width + 44 + 176 + 30, top + len(beside.patterns) * 66 + 30)
    assert last == ImageColor.getrgb(PAPER)  # one fewer


def test_whole_images_for_class_tokens() -> None:
    source = Paintings(["rrrr rrrr rrrr rrry", "rrrr rrrr rrrr rrrr", "bbbb bbbb bbbb bbbb"])
    found = find(source, kind="cls")
    red = next(pattern for pattern in found.patterns if pattern.prototype == 0)
    sheet = pattern_sheet(source, red, found, side=SIDE)
    x, y = middles(sheet, red)[1]
    assert near(colour(sheet, x + 40, y + 40), RGB[3]) and near(colour(sheet, x, y), RGB[0])
    assert overview_sheet(source, found).width > 600


@pytest.mark.parametrize("changes", [{}, {"classes": ("warm", "a class whose name is\nfar too long for any caption")}])
def test_unlabelled_and_long_names_are_no_trouble(changes: dict[str, tuple[str, ...]]) -> None:
    source = RAGGED if changes else UNLABELLED
    found = replace(find(source), **changes)
    assert overview_sheet(source, found).size[0] == 22 + 176 + PER_ROW * 70 - 6 + 22
    assert pattern_sheet(source, found.patterns[0], found).mode == "RGB"
