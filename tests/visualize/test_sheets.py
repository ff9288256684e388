import numpy as np
import pytest
from PIL import Image, ImageColor

from ibot_cli.visualize.sheets import HAIRLINE, MAT, PAPER, picture_sheet, stacked

GREEN = "#2a9d5c"


def noise(width: int, height: int, seed: int = 0, mode: str = "L") -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def levels(sheet: Image.Image) -> np.ndarray:
    return np.asarray(sheet)


def squares(sheet: Image.Image, side: int, colour: str = HAIRLINE, stroke: int = 1) -> list[tuple[int, int]]:
    """Upper left corners of the squares that a line of `colour` encloses, row by row."""
    line = (levels(sheet) == ImageColor.getrgb(colour)).all(axis=2)
    reach = side + 2 * stroke
    corners = []
    for top, left in np.argwhere(line):
        box = line[top : top + reach, left : left + reach]
        if box.shape == (reach, reach) and box[0].all() and box[-1].all() and box[:, 0].all() and box[:, -1].all():
            corners.append((int(left) + stroke, int(top) + stroke))
    return corners


def square(sheet: Image.Image, corner: tuple[int, int], side: int) -> np.ndarray:
    left, top = corner
    return levels(sheet)[top : top + side, left : left + side]


def test_tiny_images_are_enlarged_pixel_by_pixel() -> None:
    digit = noise(8, 8)
    sheet = picture_sheet([digit, digit.convert("RGB")], side=96)
    assert sheet.mode == "RGB"
    expected = np.asarray(digit).repeat(12, axis=0).repeat(12, axis=1)
    for corner in squares(sheet, 96):
        assert (square(sheet, corner, 96) == expected[..., None]).all()
    assert len(squares(sheet, 96)) == 2


def test_even_gaps_in_a_grid_without_a_lonely_row() -> None:
    corners = squares(picture_sheet([noise(8, 8, seed) for seed in range(9)], side=32), 32)
    lefts, tops = (sorted({corner[axis] for corner in corners}) for axis in (0, 1))
    assert len(corners) == 9 and len(set(np.diff(lefts))) == 1 and len(set(np.diff(tops))) == 1
    assert len(lefts) == 3 and len(tops) == 3
    narrow = picture_sheet([noise(8, 8, seed) for seed in range(9)], side=32, columns=2)
    assert len({left for left, _ in squares(narrow, 32)}) == 2


@pytest.mark.parametrize(("width", "height"), [(200, 100), (30, 90), (20, 10), (500, 1)])
def test_shape_is_kept_on_a_mat(width: int, height: int) -> None:
    sheet = picture_sheet([Image.new("RGB", (width, height), "#ff0000")], side=64)
    inside = square(sheet, squares(sheet, 64)[0], 64)
    red = (inside == (255, 0, 0)).all(axis=2)
    rows, columns = red.any(axis=1).sum(), red.any(axis=0).sum()
    longer = max(width, height)
    assert (columns, rows) == (max(1, round(width * 64 / longer)), max(1, round(height * 64 / longer)))
    assert red.sum() == rows * columns
    assert (inside[~red] == ImageColor.getrgb(MAT)).all()
    above, below = np.flatnonzero(red.any(axis=1))[[0, -1]]
    assert abs(above - (63 - below)) <= 1


def test_outlines_surround_and_cover_nothing() -> None:
    image = noise(16, 16)
    sheet = picture_sheet([image, image, image], side=64, outlines=[GREEN, None, "orange"])
    expected = np.asarray(image).repeat(4, axis=0).repeat(4, axis=1)[..., None]
    for colour, stroke in ((GREEN, 3), (HAIRLINE, 1), ("orange", 3)):
        (corner,) = [each for each in squares(sheet, 64, colour, stroke) if (square(sheet, each, 64) == expected).all()]
        left, top = corner
        assert (levels(sheet)[top - stroke, left - stroke : left + 64] == ImageColor.getrgb(colour)).all()


def ink(sheet: Image.Image) -> np.ndarray:
    """Where text is: darker than anything that paper, mat and hairline are."""
    return (levels(sheet) < 180).all(axis=2)


def test_captions_stay_in_their_column_and_above_the_next_row() -> None:
    white = Image.new("L", (40, 40), 255)
    long = "a_name_that_is_far_too_long_for_its_picture.jpg and several more words after it"
    sheet = picture_sheet([white] * 4, columns=2, side=80, captions=[long, "", "", ""])
    written = np.argwhere(ink(sheet))
    corners = squares(sheet, 80)
    assert len(written) and len(corners) == 4
    (left, top), (right, _), (_, below) = corners[:3]
    assert written[:, 0].min() > top + 80 and written[:, 0].max() < below
    assert written[:, 1].min() > left - 10 and written[:, 1].max() < right - 1
    plain = picture_sheet([white] * 4, columns=2, side=80)
    assert plain.height < sheet.height and not ink(plain).any()


def test_a_title_is_written_above_and_wraps() -> None:
    white = Image.new("L", (40, 40), 255)
    short = picture_sheet([white], side=64, title="One")
    long = picture_sheet([white], side=64, title="A title with so many words that it takes more than a line " * 2)
    assert long.width == short.width and long.height > short.height
    for sheet in (short, long):
        written = np.argwhere(ink(sheet))
        assert len(written) and written[:, 0].max() < squares(sheet, 64)[0][1]
        assert written[:, 1].min() > 0 and written[:, 1].max() < sheet.width - 1
        assert sheet.getpixel((0, 0)) == ImageColor.getrgb(PAPER)


def test_letters_that_the_font_lacks_become_others() -> None:
    white = Image.new("L", (40, 40), 255)
    for written, expected in (("Straße né", "Strasse ne"), ("日本", "??")):
        found = picture_sheet([white], captions=[written])
        assert (levels(found) == levels(picture_sheet([white], captions=[expected]))).all()


def test_many_shapes_and_modes_at_once() -> None:
    images = [noise(3, 50), noise(7, 5, mode="RGB"), Image.new("RGBA", (9, 9)), Image.new("P", (300, 10))]
    assert picture_sheet(images, side=33, captions=["a", "b", "c", "d"]).mode == "RGB"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"captions": ["a", "b"]}, "2 captions for 1 images"),
        ({"outlines": []}, "0 outlines for 1 images"),
        ({"side": 0}, "side 0"),
        ({"columns": 0}, "0 columns"),
        ({"outlines": ["no colour"]}, "no colour"),
    ],
)
def test_impossible_sheets(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        picture_sheet([noise(4, 4)], **options)
    with pytest.raises(ValueError, match="0 images"):
        picture_sheet([])


def test_places_can_stay_empty() -> None:
    image = noise(8, 8)
    corners = squares(picture_sheet([None, image, image, None], columns=2, side=64), 64)
    assert len(corners) == 2 and corners[0][0] > corners[1][0] and corners[0][1] < corners[1][1]


def test_a_title_for_each_row() -> None:
    white = Image.new("L", (40, 40), 255)
    titles = ["first row", "a title that is much too long for a row of two small pictures " * 3]
    sheet = picture_sheet([white] * 4, columns=2, side=80, row_titles=titles)
    written = np.argwhere(ink(sheet))
    corners = squares(sheet, 80)
    (_, first), (left, second) = corners[0], corners[2]
    above = written[written[:, 0] < first]
    between = written[(written[:, 0] > first + 80) & (written[:, 0] < second)]
    assert len(above) and len(between) and len(above) + len(between) == len(written)
    assert written[:, 1].max() < sheet.width - 10 and above[:, 1].max() < between[:, 1].max()
    assert above[:, 1].min() >= left - 2
    with pytest.raises(ValueError, match="1 row titles for 2 rows"):
        picture_sheet([white] * 4, columns=2, row_titles=["one"])


@pytest.mark.parametrize(("width", "height", "factor"), [(12, 8, 8), (24, 8, 4), (12, 16, 4)])
def test_places_that_are_no_squares(width: int, height: int, factor: int) -> None:
    image = noise(width, height)
    sheet = picture_sheet([image, image], side=96, height=64, columns=1)
    expected = np.full((64, 96, 3), ImageColor.getrgb(MAT), dtype=np.uint8)
    left, top = (96 - factor * width) // 2, (64 - factor * height) // 2
    large = np.asarray(image).repeat(factor, axis=0).repeat(factor, axis=1)[..., None]
    expected[top : top + large.shape[0], left : left + large.shape[1]] = large
    margin, gap = 78 // 6, max(6, 78 // 12)  # of the square of the same area
    assert sheet.width == 96 + 2 * margin
    assert (levels(sheet)[margin : margin + 64, margin : margin + 96] == expected).all()
    below = margin + 64 + gap
    assert (levels(sheet)[below : below + 64, margin : margin + 96] == expected).all()
    assert sheet.height == below + 64 + margin


def test_figures_below_each_other() -> None:
    sheet = stacked([Image.new("RGB", (10, 4), "red"), Image.new("RGB", (6, 5), "blue")])
    assert sheet.size == (10, 9)
    assert sheet.getpixel((9, 3)) == (255, 0, 0) and sheet.getpixel((5, 8)) == (0, 0, 255)
    assert "#{:02x}{:02x}{:02x}".format(*sheet.getpixel((9, 8))) == PAPER  # type: ignore[misc]


def test_figures_in_rows_below_a_title() -> None:
    black = Image.new("RGB", (100, 100))
    sheet = stacked([black] * 3, columns=2)
    assert sheet.size == (200, 200) and sheet.getpixel((50, 150)) == (0, 0, 0)
    assert sheet.getpixel((150, 150)) == ImageColor.getrgb(PAPER)
    titled = stacked([black] * 3, columns=2, title="above")
    assert titled.width == 200 and titled.height > 220
    assert (levels(titled)[-200:] == levels(sheet)).all()
