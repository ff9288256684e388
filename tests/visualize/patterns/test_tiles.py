import numpy as np
import pytest
from PIL import Image, ImageColor

from ibot_cli.visualize.patterns.result import Box, Member
from ibot_cli.visualize.patterns.tiles import INNER, OUTER, Pictures, cut_tile, outlined_tile, placed, tile_size
from ibot_cli.visualize.sheets import MAT
from tests.visualize.patterns.coloured import Painting, Paintings

MAT_COLOUR = ImageColor.getrgb(MAT)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
# red | green over blue | red, each 10 x 10
FOUR = Painting("rg br", cell=10).image()
WHOLE: Box = (0, 0, 20, 20)


def member(box: Box, window: Box, seen: Box = WHOLE, row: int | None = 0) -> Member:
    place = None if row is None else 0
    return Member(
        index=0,
        path="a",
        label=None,
        row=row,
        column=place,
        score=1.0,
        probability=1.0,
        box=box,
        window=window,
        seen=seen,
    )


def test_a_window_inside_the_image_is_cut_as_it_is() -> None:
    tile = cut_tile(FOUR, (5, 0, 15, 10), WHOLE, 100)
    assert tile.size == (100, 100) and tile.mode == "RGB"
    assert tile.getpixel((10, 50)) == RED and tile.getpixel((90, 50)) == GREEN
    assert tile.getpixel((49, 50)) == RED and tile.getpixel((50, 50)) == GREEN  # tenfold: without blur


def test_reduced_windows_are_smooth() -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8), (64, 32)))
    tile = cut_tile(stripes.convert("RGB"), (0, 0, 64, 64), (0, 0, 64, 64), 8)
    assert np.abs(np.asarray(tile)[2:-2, 2:-2].astype(int) - 127).max() < 12


def test_the_source_gives_more_than_the_network_saw() -> None:
    fine = Image.fromarray(np.tile(np.array([[0, 255], [255, 0]], dtype=np.uint8), (32, 32)))  # lost in any reduction
    tile = cut_tile(fine.convert("RGB"), (0, 0, 32, 32), (0, 0, 64, 64), 32)
    assert set(np.unique(np.asarray(tile))) == {0, 255}


def test_what_was_not_seen_is_mat() -> None:
    window = (-10.0, -10.0, 20.0, 20.0)
    outside = cut_tile(FOUR, window, WHOLE, 90)
    assert outside.getpixel((15, 15)) == MAT_COLOUR and outside.getpixel((29, 60)) == MAT_COLOUR
    assert outside.getpixel((31, 31)) == RED and outside.getpixel((85, 35)) == GREEN
    cropped = cut_tile(
        FOUR, (0, 0, 20, 20), (10, 0, 20, 20), 40
    )  # the image goes on, but the network saw the right half
    assert cropped.getpixel((18, 10)) == MAT_COLOUR and cropped.getpixel((21, 10)) == GREEN
    assert (np.asarray(cut_tile(FOUR, (30, 30, 40, 40), WHOLE, 8)) == MAT_COLOUR).all()


def test_what_was_not_seen_can_be_clear() -> None:
    tile = cut_tile(FOUR, (-10, 0, 10, 20), WHOLE, 40, clear=True)
    assert tile.mode == "RGBA" and tile.getpixel((5, 20)) == (0, 0, 0, 0) and tile.getpixel((25, 10)) == (*RED, 255)
    assert cut_tile(FOUR, (0, 0, 10, 10), WHOLE, 40, clear=True).mode == "RGB"


@pytest.mark.parametrize(
    ("window", "size"), [((0, 0, 10, 10), (50, 50)), ((0, 0, 20, 10), (50, 25)), ((0, 0, 1, 300), (1, 50))]
)
def test_windows_keep_their_shape(window: Box, size: tuple[int, int]) -> None:
    assert tile_size(window, 50) == size and cut_tile(FOUR, window, WHOLE, 50).size == size


def test_boxes_are_placed_to_the_pixel() -> None:
    assert placed((4, 6, 8, 10), (0, 0, 20, 20), (100, 50)) == (20, 15, 40, 25)


@pytest.mark.parametrize("level", [0, 110, 255])
def test_the_outline_shows_on_any_picture_and_covers_no_pixel_of_the_patch(level: int) -> None:
    image = Image.new("RGB", (20, 20), (level, level, level))
    tile = outlined_tile(image, member((8, 8, 12, 12), WHOLE), 100)
    assert {tile.getpixel((x, y)) for x in range(40, 60) for y in range(40, 60)} == {(level,) * 3}
    for at in (39, 60):
        assert tile.getpixel((at, 50)) == tile.getpixel((50, at)) == ImageColor.getrgb(INNER)
    for at in (38, 61):
        assert tile.getpixel((at, 50)) == tile.getpixel((50, at)) == ImageColor.getrgb(OUTER)
    assert tile.getpixel((36, 50)) == (level,) * 3
    assert max(abs(level - tone[0]) for tone in map(ImageColor.getrgb, (INNER, OUTER))) > 100


def test_no_outline_where_it_would_frame_everything() -> None:
    assert outlined_tile(FOUR, member(WHOLE, WHOLE), 40).tobytes() == cut_tile(FOUR, WHOLE, WHOLE, 40).tobytes()
    seen = (0.0, 0.0, 20.0, 20.0)
    assert outlined_tile(FOUR, member(seen, seen, row=None), 40).getpixel((0, 0)) == RED


class _Counting(Paintings):
    def __init__(self) -> None:
        super().__init__([Painting("rg br", cell=10), Painting("b"), Painting("g")], bad=[2])
        self.reads: list[int] = []

    def read(self, index: int) -> Image.Image:
        self.reads.append(index)
        return super().read(index)


def test_pictures_are_kept_as_long_as_there_is_room() -> None:
    source = _Counting()
    pictures = Pictures(source, kept=400 + 64)
    assert [pictures.read(index) is pictures.read(index) for index in (0, 1, 0)] == [True] * 3
    assert source.reads == [0, 1]
    small = Pictures(source, kept=399)  # the first alone is larger
    assert small.read(0) is small.read(0) and small.read(1) is not None and small.read(0) is not None
    assert source.reads == [0, 1, 0, 1, 0]


def test_a_picture_that_cannot_be_read_is_none() -> None:
    assert Pictures(_Counting()).read(2) is None
