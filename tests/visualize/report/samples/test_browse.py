import pytest

from ibot_cli.errors import DataError
from ibot_cli.visualize.report.samples.browse import Browse, browse_neighbours
from tests.visualize.report.samples.gallery import gallery, subject

# Rows of red (1, 0, 0) and green (0, 1, 0): the cosine of rrrr to rrrg is 3 / sqrt(10), to rrgg 2 / sqrt(8).
TRAIN = ("rrrr", "rrrg", "gggg", "gggr")
LABELS = (0, 0, 1, 1)


def browse(*arguments: object, **options: object) -> Browse:
    asked = subject(gallery(*arguments), **options)  # type: ignore[arg-type]
    return browse_neighbours(asked.loaded, asked.gallery, asked.options)


def test_neighbours_in_order_with_their_cosines() -> None:
    found = browse(TRAIN, LABELS, ("rrrr",), (0,), neighbours=3)
    (asked,) = found.asked
    assert [near.place for near in asked.found.neighbours] == [0, 1, 3]
    cosines = [near.similarity for near in asked.found.neighbours]
    assert cosines == pytest.approx([1.0, 3 / 10**0.5, 1 / 10**0.5], abs=2e-6)
    assert (found.num_asked, found.num_searched, found.k) == (1, 4, 4)


def test_the_vote_says_who_is_wrong_and_wrong_ones_come_first() -> None:
    # the second is green by its label only: its nearest ones are red
    found = browse(TRAIN, LABELS, ("rrrr", "rrrg", "gggg"), (0, 1, 1))
    assert found.num_wrong == 1
    assert [(asked.found.place, asked.predicted, asked.wrong) for asked in found.asked] == [
        (1, "red", True),
        (0, "red", False),
        (2, "green", False),
    ]


def test_without_labels_nothing_is_wrong() -> None:
    found = browse(TRAIN, None, ("rrrr", "gggg"), None)
    assert found.num_wrong is None
    assert [asked.predicted for asked in found.asked] == [None, None]
    assert not any(asked.wrong for asked in found.asked)


def test_without_a_test_part_an_image_is_not_its_own_neighbour() -> None:
    found = browse(TRAIN, LABELS)
    assert found.num_asked == 4 and found.num_searched == 3
    for asked in found.asked:
        assert asked.found.place not in [near.place for near in asked.found.neighbours]


def test_caps_choose_fewer_and_the_same_again() -> None:
    train, labels = [f"r{a}{b}g" for a in "rgbyc" for b in "rgbyc"], [0, 1] * 12 + [0]
    found = browse(train, labels, train, labels, most_gallery=10, most_queries=7, queries=4, neighbours=2)
    assert (found.num_searched, found.num_asked, len(found.asked)) == (10, 7, 4)
    assert found == browse(train, labels, train, labels, most_gallery=10, most_queries=7, queries=4, neighbours=2)


def test_unreadable_images_are_notes() -> None:
    asked = subject(gallery(TRAIN, LABELS, ("rrrr", "gggg"), (0, 1), bad=(1,), bad_tests=(1,)))
    found = browse_neighbours(asked.loaded, asked.gallery, asked.options)
    assert found.notes == ("painting 1 could not be read and was left out: damaged.",)
    assert [one.found.place for one in found.asked] == [0]
    assert 1 not in [near.place for near in found.asked[0].found.neighbours]


def test_a_single_image_has_no_neighbour() -> None:
    with pytest.raises(DataError, match="one readable image only, which has no neighbour"):
        browse(("rrrr",), (0,))
