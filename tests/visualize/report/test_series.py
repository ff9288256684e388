import numpy as np

from ibot_cli.visualize.report.metrics import Series
from ibot_cli.visualize.report.series import MOST, at, smoothed, thinned


def series(values: object) -> Series:
    array = np.asarray(values, dtype=np.float64)
    return Series(np.arange(1.0, len(array) + 1), array)


def test_averages() -> None:
    short = series([1, 5, 1])
    assert smoothed(short) is short
    flat = smoothed(series(np.ones(1000)))
    assert np.allclose(flat.values, 1) and len(flat) == 1000
    assert np.allclose(smoothed(series(np.arange(1000))).values[100:900], np.arange(1000)[100:900], atol=0.51)
    alternating = smoothed(series(np.tile([0.0, 2.0], 500)))
    assert alternating.values[50:-50].min() > 0.8 and alternating.values[50:-50].max() < 1.2


def test_thinning_keeps_ends_and_what_sticks_out() -> None:
    values = np.zeros(100_000)
    values[12_345], values[77_777] = 9, -9
    thin = thinned(series(values))
    assert len(thin) <= MOST + 2
    assert thin.steps[0] == 1 and thin.steps[-1] == 100_000
    assert {12_346, 77_778} <= set(thin.steps.tolist())
    assert np.all(np.diff(thin.steps) > 0)
    few = series([1, 2, 3])
    assert thinned(few) is few


def test_values_at_places() -> None:
    assert at(Series(np.array([2.0, 4.0]), np.array([0.5, 0.7])), np.array([1.0, 2.0, 3.0, 9.0])) == [
        None,
        0.5,
        0.5,
        0.7,
    ]
