"""What is drawn for a view, and how it travels."""

import numpy as np
import pytest

from ibot_cli.data.changes import COLUMNS, NONE, Changes, Strengths, draw_changes, pack_changes

PUBLISHED = Strengths(0.5, 0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, (0.1, 2.0), 0.2)


def test_frequencies_and_ranges_are_the_published_ones():
    draws = np.random.default_rng(3).random((4000, 14))
    changes = [draw_changes(PUBLISHED, row) for row in draws.tolist()]
    for expected, name in [(0.5, "flip"), (0.8, "jitter"), (0.2, "gray"), (0.5, "blur_radius"), (0.2, "solarize")]:
        assert np.mean([bool(getattr(change, name)) for change in changes]) == pytest.approx(expected, abs=0.03)
    radii = np.array([change.blur_radius for change in changes if change.blur_radius])
    assert radii.min() >= 0.1 and radii.max() <= 2.0 and radii.mean() == pytest.approx(1.05, abs=0.05)
    jitters = [change.jitter for change in changes if change.jitter]
    for op, low, high in [(0, 0.6, 1.4), (1, 0.6, 1.4), (2, 0.8, 1.2), (3, -0.1, 0.1)]:
        factors = np.array([dict(jitter)[op] for jitter in jitters])
        assert low <= factors.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < factors.max() <= high
    orders = [tuple(op for op, _ in jitter) for jitter in jitters]
    assert len(set(orders)) == 24 and max(map(orders.count, set(orders))) < 2 * len(orders) / 24


def test_strengths_of_zero_draw_nothing():
    none = Strengths(0, 0, 0.4, 0.4, 0.2, 0.1, 0, 0, (0.1, 2.0), 0)
    assert draw_changes(none, [0.0] * 14) == Changes(False, (), False, 0.0, False)
    only_contrast = Strengths(0, 1, 0, 0.4, 0, 0, 0, 0, (0.1, 2.0), 0)
    assert draw_changes(only_contrast, [0.5] * 14).jitter == ((1, 1.0),)


def test_each_number_has_its_own_meaning():
    """Runs that were started earlier go on with the changes that they would have had."""
    draws = [0.4, 0.7, 0.9, 0.2, 0.8, 0.1, 0.5, 1.0, 0.0, 0.75, 0.1, 0.3, 0.5, 0.9]
    flip, jitter, gray, blur_radius, solarize = draw_changes(PUBLISHED, draws)
    assert (flip, gray, solarize) == (True, True, False) and blur_radius == pytest.approx(1.05)
    assert [op for op, _ in jitter] == [3, 1, 2, 0]
    np.testing.assert_allclose([factor for _, factor in jitter], [0.05, 1.4, 0.8, 1.0])


def test_packed_rows():
    still = Changes(False, (), False, 0.0, False)
    some = Changes(True, ((3, -0.25), (1, 1.5)), True, 1.5, True)
    packed = pack_changes([still, some])
    assert packed.tolist() == [
        [0, NONE, 0, NONE, 0, NONE, 0, NONE, 0, 0, 0, 0],
        [1, 3, -0.25, 1, 1.5, NONE, 0, NONE, 0, 1, 1.5, 1],
    ]
    assert pack_changes([]).shape == (0, COLUMNS)
