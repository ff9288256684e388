"""Long series made small enough for a page: smoothed, and thinned without losing what sticks out."""

from __future__ import annotations

import itertools

import numpy as np

from ibot_cli.visualize.report.metrics import Numbers, Series

MOST = 260  # points of a line; more cannot be told apart at the size of a chart
WINDOWS = 50  # per series


def smoothed(series: Series) -> Series:
    """The moving average over a fiftieth of the series, centred; at the ends over what there is."""
    width = max(1, round(len(series) / WINDOWS))
    if width == 1:
        return series
    before, after = (width - 1) // 2, width // 2
    total = np.concatenate([[0.0], np.cumsum(series.values)])
    places = np.arange(len(series))
    low, high = np.maximum(places - before, 0), np.minimum(places + after + 1, len(series))
    return Series(series.steps, (total[high] - total[low]) / (high - low))


def thinned(series: Series, most: int = MOST) -> Series:
    """About `most` points: the ends, and of every stretch the lowest and the highest, in their order."""
    if len(series) <= most:
        return series
    edges = np.linspace(0, len(series), max(most // 2, 1) + 1).astype(int)
    kept = {0, len(series) - 1}
    for first, end in itertools.pairwise(edges):
        part = series.values[first:end]
        kept |= {int(first + part.argmin()), int(first + part.argmax())}
    chosen = np.array(sorted(kept))
    return Series(series.steps[chosen], series.values[chosen])


def at(series: Series, places: Numbers) -> list[float | None]:
    """The newest value up to each place; None before the first."""
    found = np.searchsorted(series.steps, places, side="right") - 1
    return [float(series.values[index]) if index >= 0 else None for index in found]
