import numpy as np
import pytest

from ibot_cli.data.labels import choose_labels, lifted_classes
from ibot_cli.errors import DataError

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [100, 40, 3, 200, 7]))
NAMES = ["ant", "bee", "cow", "dog", "eel"]


def counts(chosen):
    return np.bincount(LABELS[chosen], minlength=5).tolist()


def test_everything_by_default():
    np.testing.assert_array_equal(choose_labels(LABELS), np.arange(len(LABELS)))


def test_a_share_of_each_class_and_at_least_one_image():
    chosen = choose_labels(LABELS, fraction=0.1)
    assert counts(chosen) == [10, 4, 1, 20, 1]
    assert (np.diff(chosen) > 0).all()
    assert lifted_classes(LABELS, 0.1) == 1
    assert lifted_classes(LABELS, 0.5) == 0


def test_so_many_of_each_class():
    assert counts(choose_labels(LABELS, per_class=3)) == [3] * 5


@pytest.mark.parametrize(
    ("small", "large"), [({"fraction": 0.01}, {"fraction": 0.1}), ({"per_class": 1}, {"per_class": 3})]
)
def test_a_smaller_choice_is_a_part_of_a_larger_one(small, large):
    for seed in (0, 7):
        parts = [set(choose_labels(LABELS, seed=seed, **much).tolist()) for much in (small, large)]
        assert parts[0] < parts[1] < set(range(len(LABELS)))


def test_the_choice_is_fixed_by_its_seed():
    first = choose_labels(LABELS, fraction=0.1, seed=1)
    np.testing.assert_array_equal(first, choose_labels(LABELS, fraction=0.1, seed=1))
    assert not np.array_equal(first, choose_labels(LABELS, fraction=0.1, seed=2))


def test_the_choice_in_a_class_does_not_depend_on_the_other_classes():
    only = np.flatnonzero(LABELS == 3)
    alone = only[choose_labels(LABELS[only], per_class=2, seed=4)]
    together = choose_labels(LABELS, per_class=2, seed=4)
    np.testing.assert_array_equal(alone, together[LABELS[together] == 3])


def test_every_image_is_chosen_equally_often():
    labels = np.zeros(10, dtype=np.int64)
    hits = np.bincount(np.concatenate([choose_labels(labels, per_class=3, seed=s) for s in range(400)]), minlength=10)
    assert hits.sum() == 1200
    assert abs(hits - 120).max() < 45  # about five standard deviations


def test_more_than_a_class_has():
    with pytest.raises(
        DataError, match=r"^The class cow has 3 images, fewer than labels.per_class = 8, and 1 more "
    ) as e:
        choose_labels(LABELS, per_class=8, classes=NAMES)
    assert e.value.hint == "Set labels.per_class to at most 3, or use labels.fraction."
    with pytest.raises(DataError, match=r"^The class number 2 has 3 images, fewer than labels.per_class = 4\.$"):
        choose_labels(LABELS, per_class=4)
    with pytest.raises(DataError, match="and 2 more classes have too few"):
        choose_labels(LABELS, per_class=41, classes=NAMES)


def test_both_at_once():
    with pytest.raises(ValueError, match="not both"):
        choose_labels(LABELS, fraction=0.1, per_class=1)
