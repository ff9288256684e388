import numpy as np
import pytest

from ibot_cli.visualize.report.samples.choice import choose_queries, readable_images, some_images
from tests.visualize.patterns.coloured import Paintings
from tests.visualize.report.samples.gallery import filled


def labels_and_wrong() -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(5), 20)
    wrong = np.zeros(100, dtype=bool)
    wrong[[0, 1, 2, 3, 20, 21, 40, 60, 61, 62]] = True
    return labels, wrong


def test_half_is_wrong_and_each_half_is_spread_over_the_classes() -> None:
    labels, wrong = labels_and_wrong()
    first, second = choose_queries(labels, wrong, 12, seed=0)
    assert len(first) == len(second) == 6
    assert wrong[first].all() and not wrong[second].any()
    assert np.bincount(labels[first], minlength=5).tolist() in ([2, 2, 1, 1, 0], [2, 1, 1, 2, 0], [1, 2, 1, 2, 0])
    assert sorted(np.bincount(labels[second], minlength=5).tolist()) == [1, 1, 1, 1, 2]
    assert (np.diff(labels[first]) >= 0).all() and (np.diff(labels[second]) >= 0).all()


@pytest.mark.parametrize(("count", "num_wrong", "num_right"), [(40, 10, 30), (200, 10, 90), (1, 0, 1)])
def test_what_one_half_lacks_the_other_gives(count: int, num_wrong: int, num_right: int) -> None:
    first, second = choose_queries(*labels_and_wrong(), count, seed=0)
    assert (len(first), len(second)) == (num_wrong, num_right)
    assert len({*first.tolist(), *second.tolist()}) == num_wrong + num_right


def test_where_almost_all_are_wrong_wrong_ones_fill_up() -> None:
    wrong = np.ones(10, dtype=bool)
    wrong[3] = False
    first, second = choose_queries(np.zeros(10, dtype=np.int64), wrong, 6, seed=0)
    assert len(first) == 5 and second.tolist() == [3]


def test_the_seed_decides_and_nothing_else_is_drawn() -> None:
    np.random.seed(1)  # noqa: NPY002  # it is the global generator that must stay as it is
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    labels, wrong = labels_and_wrong()
    picked = [np.concatenate(choose_queries(labels, wrong, 12, seed)).tolist() for seed in (0, 0, 1)]
    assert picked[0] == picked[1] != picked[2]
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002


def test_a_capped_source_keeps_its_order_and_labels() -> None:
    source = Paintings([filled("r")] * 50, list(range(50)), [str(number) for number in range(50)])
    some = some_images(source, 10, seed=0)
    assert len(some) == 10 and some.labels is not None
    assert [some.path(place) for place in range(10)] == [f"painting {label}" for label in some.labels]
    assert (np.diff(some.labels) > 0).all()
    assert some_images(source, 50, seed=0) is source


def test_unreadable_images_are_passed_over_and_told() -> None:
    source = Paintings([filled("r")] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2], list("abc"), bad=(0, 4, 8))
    bad: dict[str, str] = {}
    places = [place for place, _ in readable_images(source, 5, 0, bad)]
    assert len(places) == 5 and not {0, 4, 8} & set(places)
    assert bad and set(bad) <= {"painting 0", "painting 4", "painting 8"} and set(bad.values()) == {"damaged"}
    assert len(list(readable_images(source, 20, 0, bad))) == 6
    assert len(bad) == 3
