"""How well an assignment of images to prototypes agrees with their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of clusters and classes; 1 is perfect for each.

    Attributes:
        nmi: Normalised mutual information, arithmetic mean; grows with the number of clusters even by chance.
        ami: Adjusted mutual information, 0 in expectation by chance.
        ari: Adjusted Rand index, 0 in expectation by chance.
        fmi: Fowlkes-Mallows index.
    """

    nmi: float
    ami: float
    ari: float
    fmi: float


def agreement(assignments: NDArray[np.int64], labels: NDArray[np.int64]) -> Agreement:
    """Compare cluster numbers with classes; only the partition counts, not the numbers.

    Args:
        assignments: Cluster of each image, int `[n]`, n >= 1.
        labels: Class of each image, int `[n]`.

    Raises:
        ValueError: The lengths differ or are 0.

    Source:
        The monitoring of the authors' iBOT code (NMI, ARI, FMI), plus AMI.
    """
    if len(assignments) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(assignments)} assignments for {len(labels)} labels")
    return Agreement(
        nmi=float(metrics.normalized_mutual_info_score(labels, assignments, average_method="arithmetic")),
        ami=float(metrics.adjusted_mutual_info_score(labels, assignments, average_method="arithmetic")),
        ari=float(metrics.adjusted_rand_score(labels, assignments)),
        fmi=float(metrics.fowlkes_mallows_score(labels, assignments)),
    )
