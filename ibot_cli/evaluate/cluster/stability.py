"""How good clusters are without labels: whether they come out again, and whether they stand apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics
from torch import Tensor

MOST_RUNS = 10
MOST_IMAGES = 2_000


def stability(runs: Sequence[NDArray[np.int64]]) -> float | None:
    """Mean adjusted Rand index over all pairs of the first 10 runs, or None for a single one.

    Args:
        runs: Assignments `[n]` of runs from different seeds.

    Returns:
        1 where every run finds the same clusters; about 0 where they have nothing in common.
    """
    pairs = list(combinations(runs[:MOST_RUNS], 2))
    if not pairs:
        return None
    return float(np.mean([metrics.adjusted_rand_score(first, second) for first, second in pairs]))


def silhouette(
    features: Tensor, assignments: NDArray[np.int64], *, metric: str, seed: int = 0, most: int = MOST_IMAGES
) -> float | None:
    """Mean silhouette of a seeded sample of images: 1 is compact and apart, below 0 is nearer to another cluster.

    Args:
        features: float `[n, D]`.
        assignments: Cluster of each image, int64 `[n]`.
        metric: `cosine` or `euclidean`.
        seed: Of the sample.
        most: Its size.

    Returns:
        None where the sample lies in one cluster, or each image in its own.

    Source:
        P. J. Rousseeuw, J. Comput. Appl. Math. 20 (1987), 53-65.
    """
    chosen = np.arange(len(assignments))
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(chosen))[:most])
    sample = assignments[chosen]
    if not 2 <= len(np.unique(sample)) < len(sample):
        return None
    return float(metrics.silhouette_score(features[chosen].double().numpy(), sample, metric=metric))
