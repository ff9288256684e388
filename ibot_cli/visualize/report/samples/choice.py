"""Which images of many are shown; every choice has its own stream of the seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.sources import Source, Subset

BROWSED, LOOKED_THROUGH, ATTENDED = 71, 72, 73  # streams


def choose_queries(
    labels: NDArray[np.int64], wrong: NDArray[np.bool_], count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to show: about half of them wrong ones, each half spread evenly over the classes.

    Args:
        labels: int64 `[m]`.
        wrong: bool `[m]`.
        count: Rows in all; fewer where there are not so many.
        seed: Of the choice.

    Returns:
        Rows of wrong ones and of the others, int64, each by class.
    """
    rng = np.random.default_rng((seed, BROWSED))
    halves = [_spread(np.flatnonzero(kind), labels, rng) for kind in (wrong, ~wrong)]
    num_wrong = min(len(halves[0]), max(count // 2, count - len(halves[1])))
    kept = halves[0][:num_wrong], halves[1][: count - num_wrong]
    first, second = (rows[np.lexsort((rows, labels[rows]))] for rows in kept)
    return first, second


def some_images(source: Source, most: int, seed: int) -> Source:
    """The source, or where it has more than `most` images a choice of so many, in its order."""
    if len(source) <= most:
        return source
    rng = np.random.default_rng((seed, LOOKED_THROUGH))
    return Subset(source, np.sort(rng.permutation(len(source))[:most]))


def readable_images(source: Source, count: int, seed: int, bad: dict[str, str]) -> Iterator[tuple[int, np.ndarray]]:
    """Places and images of `count` images spread over the classes; those that cannot be read are passed over.

    Args:
        source: The images.
        count: How many; fewer where there are not so many.
        seed: Of the choice.
        bad: Takes what could not be read: path -> reason.
    """
    labels = np.zeros(len(source), dtype=np.int64) if source.labels is None else source.labels
    rng = np.random.default_rng((seed, ATTENDED))
    found = 0
    for place in _spread(np.arange(len(source)), labels, rng).tolist():
        if found == count:
            return
        try:
            image = source.levels(place)
        except UnreadableImage as error:
            bad[error.path] = error.reason
            continue
        found += 1
        yield place, image


def _spread(rows: NDArray[np.int64], labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The rows in an order in which one of every class comes before a second one of any."""
    rows = rng.permutation(rows)
    by_class = np.argsort(labels[rows], kind="stable")
    _, starts, counts = np.unique(labels[rows][by_class], return_index=True, return_counts=True)
    turn = np.empty(len(rows), dtype=np.int64)
    turn[by_class] = np.arange(len(rows)) - np.repeat(starts, counts)
    return rows[np.argsort(turn, kind="stable")]
