from ibot_cli.visualize.report.samples.thumbnails import Thumbnails
from tests.visualize.patterns.coloured import Painting, Paintings
from tests.visualize.report.samples.gallery import filled


def test_equal_pixels_are_stored_once_and_nothing_is_read_twice() -> None:
    one = Paintings([filled("rrgg"), filled("gggg"), filled("rrgg")])
    other = Paintings([filled("gggg")])
    copies = Thumbnails("x")
    used = [copies.of(one, 0), copies.of(one, 1), copies.of(one, 2), copies.of(one, 0), copies.of(other, 0)]
    assert [thumbnail.key for thumbnail in used if thumbnail] == ["x-0", "x-1", "x-0", "x-0", "x-1"]
    assert [copy.key for copy in copies.made] == ["x-0", "x-1"]
    assert len({copy.uri for copy in copies.made}) == 2


def test_an_unreadable_image_is_none_and_told_once() -> None:
    copies = Thumbnails("x")
    source = Paintings([filled("r")], bad=(0,))
    assert copies.of(source, 0) is None and copies.of(source, 0) is None
    assert copies.bad == {"painting 0": "damaged"} and copies.made == []


def test_small_images_stay_sharp_and_large_ones_become_small() -> None:
    source = Paintings([Painting(filled("rgby")), Painting(filled("rgby"), cell=100)])
    copies = Thumbnails("x", longest=80)
    small, large = copies.of(source, 0), copies.of(source, 1)
    assert small is not None and large is not None
    assert small.sharp and not large.sharp
    assert large.uri.startswith("data:image/webp") and len(large.uri) < 4_000
