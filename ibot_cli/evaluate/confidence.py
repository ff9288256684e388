"""Confidence intervals of accuracies and of differences between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
_HALVINGS = 60


def wilson(correct: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of a share.

    Args:
        correct: Successes, 0 to `total`.
        total: Trials, at least 1.
        level: Confidence, between 0 and 1.

    Returns:
        Lower and upper limit, within 0 and 1.

    Raises:
        ValueError: The counts or the level are impossible.

    Source:
        E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212; without continuity correction.
    """
    z = _quantile(level)
    _check_counts(correct, total)
    share, spread = correct / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    # the ends are exact by the formula, and would else be off by a rounding error
    low = 0.0 if correct == 0 else max(0.0, middle - half)
    high = 1.0 if correct == total else min(1.0, middle + half)
    return low, high


def unpaired_difference(
    correct_a: int, total_a: int, correct_b: int, total_b: int, level: float = LEVEL
) -> tuple[float, float, float]:
    """The difference of two shares from different images, share a less share b.

    Args:
        correct_a: Successes of a.
        total_a: Trials of a.
        correct_b: Successes of b.
        total_b: Trials of b.
        level: Confidence, between 0 and 1.

    Returns:
        Difference, lower and upper limit.

    Raises:
        ValueError: The counts or the level are impossible.

    Source:
        R. G. Newcombe, Stat. Med. 17 (1998), 873-890, method 10 (hybrid score).
    """
    low_a, high_a = wilson(correct_a, total_a, level)
    low_b, high_b = wilson(correct_b, total_b, level)
    a, b = correct_a / total_a, correct_b / total_b
    return a - b, a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)


def paired_difference(a: NDArray[np.bool_], b: NDArray[np.bool_], level: float = LEVEL) -> tuple[float, float, float]:
    """The difference of two shares on the same images, share a less share b.

    Only images on which the two disagree count, so it is narrower than `unpaired_difference` where they mostly agree.
    At a level of 95 % it leaves out 0 exactly where McNemar's test (without correction) rejects at 5 %.

    Args:
        a: Whether each image is right, bool `[n]`, n >= 1.
        b: The same images in the same order.
        level: Confidence, between 0 and 1.

    Returns:
        Difference, lower and upper limit.

    Raises:
        ValueError: The lengths differ or are 0, or the level is impossible.

    Source:
        T. Tango, Stat. Med. 17 (1998), 891-908 (score interval).
    """
    z = _quantile(level)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError(f"{a.shape} and {b.shape} are not two answers to the same images")
    only_a, only_b, total = int(np.sum(a & ~b)), int(np.sum(b & ~a)), len(a)
    difference = (only_a - only_b) / total

    def score(delta: float) -> float:
        return _score(only_a, only_b, total, delta)

    low = -1.0 if difference == -1 else _crossing(lambda delta: score(delta) - z, -1.0, difference)
    high = 1.0 if difference == 1 else _crossing(lambda delta: score(delta) + z, difference, 1.0)
    return difference, low, high


def _score(only_a: int, only_b: int, total: int, delta: float) -> float:
    """Tango's statistic of the hypothesis that the true difference is `delta`; falls as `delta` grows."""
    linear = (2 * total - only_a + only_b) * delta - only_a - only_b
    root = math.sqrt(max(0.0, linear**2 + 8 * total * only_b * delta * (1 - delta)))
    share_b = (root - linear) / (4 * total)  # most likely share of "only b" under the hypothesis
    variance = total * (2 * share_b + delta * (1 - delta))
    excess = only_a - only_b - total * delta
    if variance <= 0:
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def _crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function meets 0."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2


def _quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"a confidence level of {level}")
    return NormalDist().inv_cdf((1 + level) / 2)


def _check_counts(correct: int, total: int) -> None:
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"{correct} of {total}")
