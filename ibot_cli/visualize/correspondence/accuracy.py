"""How often the nearest patch is the right one, over pairs of views whose geometry is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibot_cli.visualize.correspondence.geometry import near_chance, steps_apart
from ibot_cli.visualize.correspondence.matching import Nearest
from ibot_cli.visualize.correspondence.pairs import ViewPair

_RESAMPLES = 2_000
_ENDS = (2.5, 97.5)  # percent: a level of 95 %
_FEWEST_GROUPS = 5


@dataclass(frozen=True, kw_only=True)
class MatchAccuracy:
    """How well one network finds patches again.

    Attributes:
        accuracy: Share of the patches whose nearest patch is the right one.
        interval: Of the accuracy, 95 %, or None for fewer than five images (of a single image: pairs).
        accuracy_within_1: The same where one of its eight neighbours is right too.
        mutual: Share of the patches whose nearest has them for its nearest in turn.
        mutual_accuracy: Accuracy over these, or None when there is none.
        mutual_accuracy_within_1: The same with neighbours.
    """

    accuracy: float
    interval: tuple[float, float] | None
    accuracy_within_1: float
    mutual: float
    mutual_accuracy: float | None
    mutual_accuracy_within_1: float | None


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What matching reaches that knows nothing of the picture.

    Attributes:
        accuracy: Of patches drawn at random.
        accuracy_within_1: The same where neighbours count.
        same_place: Accuracy of taking the patch at the same place of the other view.
        same_place_within_1: The same where neighbours count.
    """

    accuracy: float
    accuracy_within_1: float
    same_place: float
    same_place_within_1: float


def count_right(pair: ViewPair, found: Nearest) -> NDArray[np.int64]:
    """int64 `[6]`: patches with a counterpart, right, within one patch; then the same over mutual matches only."""
    asked = pair.truth >= 0
    apart = steps_apart(found.forward, pair.truth, pair.grid)
    both = asked & found.mutual
    return np.array([(part & (apart <= most)).sum() for part in (asked, both) for most in (pair.grid, 0, 1)])


def count_same_place(pair: ViewPair) -> NDArray[np.float64]:
    """float64 `[5]`: patches with a counterpart; expected right and near ones by chance; right and near at the same
    place.
    """
    asked = np.flatnonzero(pair.truth >= 0)
    truth = pair.truth[asked]
    apart = steps_apart(asked, truth, pair.grid)
    by_chance = len(truth) / pair.grid**2, near_chance(truth, pair.grid).sum()
    return np.array([len(truth), *by_chance, (apart == 0).sum(), (apart <= 1).sum()])


def match_accuracy(counts: Sequence[NDArray[np.int64]], groups: Sequence[int], seed: int) -> MatchAccuracy:
    """Accuracy over all patches of all pairs.

    Args:
        counts: Per pair, from `count_right`.
        groups: Per pair, what is drawn again for the interval: the image, or the pair where there is one image only.
        seed: Of the drawing.
    """
    total = np.sum(counts, axis=0)
    queries, right, near, mutual, mutual_right, mutual_near = (int(number) for number in total)
    return MatchAccuracy(
        accuracy=right / queries,
        interval=_interval(np.stack(counts)[:, :2], groups, seed),
        accuracy_within_1=near / queries,
        mutual=mutual / queries,
        mutual_accuracy=mutual_right / mutual if mutual else None,
        mutual_accuracy_within_1=mutual_near / mutual if mutual else None,
    )


def chance(counts: Sequence[NDArray[np.float64]]) -> Chance:
    """From what `count_same_place` gave for each pair."""
    queries, right, near, same, same_near = (float(number) for number in np.sum(counts, axis=0))
    return Chance(
        accuracy=right / queries,
        accuracy_within_1=near / queries,
        same_place=same / queries,
        same_place_within_1=same_near / queries,
    )


def _interval(counts: NDArray[np.int64], groups: Sequence[int], seed: int) -> tuple[float, float] | None:
    """Percentile bootstrap over groups: patches of an image are right or wrong together, so they are not drawn singly.

    Args:
        counts: int64 `[pairs, 2]`: patches, right ones.
        groups: Group of each pair.
        seed: Of the drawing.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((member.max() + 1, 2))
    np.add.at(sums, member, counts)
    if len(sums) < _FEWEST_GROUPS:
        return None
    drawn = np.random.default_rng(seed).integers(len(sums), size=(_RESAMPLES, len(sums)))
    queries, right = sums[drawn].sum(axis=1).T
    low, high = np.percentile(right / queries, _ENDS)
    return float(low), float(high)
