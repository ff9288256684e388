"""How well an assignment of images to clusters agrees with their labels, and how well chance would do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn import metrics

CHANCE_DRAWS = 20

Numbers = NDArray[np.int64]


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


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What clusters of the same sizes reach on average when images are dealt to them at random.

    Attributes:
        nmi: Normalised mutual information.
        purity: Share of images of their cluster's majority.
        hungarian: Accuracy of the best pairing of clusters and classes; None unless there are as many of both.
    """

    nmi: float
    purity: float
    hungarian: float | None


@dataclass(frozen=True, kw_only=True)
class ClusterSizes:
    """Images per cluster that has any.

    Attributes:
        used: Clusters with at least one image.
        empty: Clusters without.
        smallest: Images of the smallest used cluster.
        median: Of the used clusters.
        largest: Images of the largest.
    """

    used: int
    empty: int
    smallest: int
    median: float
    largest: int


def agreement(assignments: Numbers, labels: Numbers) -> Agreement:
    """Compare cluster numbers with classes; only the partition counts, not the numbers.

    Args:
        assignments: Cluster of each image, int `[n]`, n >= 1.
        labels: Class of each image, int `[n]`.

    Raises:
        ValueError: The lengths differ or are 0.

    Source:
        The monitoring of the authors' iBOT code (NMI, ARI, FMI), plus AMI.
    """
    _check_lengths(assignments, labels)
    return Agreement(
        nmi=nmi(assignments, labels),
        ami=float(metrics.adjusted_mutual_info_score(labels, assignments, average_method="arithmetic")),
        ari=float(metrics.adjusted_rand_score(labels, assignments)),
        fmi=float(metrics.fowlkes_mallows_score(labels, assignments)),
    )


def nmi(assignments: Numbers, labels: Numbers) -> float:
    """Normalised mutual information with the arithmetic mean, which the papers report."""
    return float(metrics.normalized_mutual_info_score(labels, assignments, average_method="arithmetic"))


def purity(assignments: Numbers, labels: Numbers) -> float:
    """Share of images whose class is the most frequent one of their cluster, int `[n]` each.

    It can only grow as clusters are divided; a cluster per image gives 1.
    """
    _check_lengths(assignments, labels)
    _, cluster = np.unique(assignments, return_inverse=True)
    pairs, counts = np.unique(np.stack([cluster, labels]), axis=1, return_counts=True)
    most = np.zeros(cluster.max() + 1, dtype=np.int64)
    np.maximum.at(most, pairs[0], counts)
    return float(most.sum() / len(labels))


def hungarian_accuracy(assignments: Numbers, labels: Numbers, num_clusters: int, num_classes: int) -> float:
    """Accuracy under the pairing of clusters and classes that makes it largest; each takes part once at most.

    Args:
        assignments: Cluster of each image, int `[n]`, 0 <= cluster < `num_clusters`; some may be empty.
        labels: Class of each image, int `[n]`, 0 <= label < `num_classes`.
        num_clusters: K.
        num_classes: C.

    Source:
        Unsupervised classification of the authors' iBOT code; here over the whole K x C table, so that clusters
        nobody is in do no harm.
    """
    _check_lengths(assignments, labels)
    table = np.bincount(assignments * num_classes + labels, minlength=num_clusters * num_classes)
    table = table.reshape(num_clusters, num_classes)
    paired = linear_sum_assignment(table, maximize=True)
    return float(table[paired].sum() / len(labels))


def chance_level(
    assignments: Numbers,
    labels: Numbers,
    num_clusters: int,
    num_classes: int,
    *,
    draws: int = CHANCE_DRAWS,
    seed: int = 0,
) -> Chance:
    """Mean scores over seeded random permutations of the labels, which keep the sizes of clusters and classes.

    Args:
        assignments: Cluster of each image, int `[n]`.
        labels: Class of each image, int `[n]`.
        num_clusters: K.
        num_classes: C.
        draws: Permutations.
        seed: Of them.
    """
    rng = np.random.default_rng(seed)
    dealt = [rng.permutation(labels) for _ in range(draws)]
    paired = num_clusters == num_classes
    return Chance(
        nmi=float(np.mean([nmi(assignments, each) for each in dealt])),
        purity=float(np.mean([purity(assignments, each) for each in dealt])),
        hungarian=float(np.mean([hungarian_accuracy(assignments, each, num_clusters, num_classes) for each in dealt]))
        if paired
        else None,
    )


def cluster_sizes(assignments: Numbers, num_clusters: int) -> ClusterSizes:
    """How the images, int `[n]`, n >= 1, are spread over K clusters."""
    counts = np.bincount(assignments, minlength=num_clusters)
    used = counts[counts > 0]
    return ClusterSizes(
        used=len(used),
        empty=len(counts) - len(used),
        smallest=int(used.min()),
        median=float(np.median(used)),
        largest=int(used.max()),
    )


def _check_lengths(assignments: Numbers, labels: Numbers) -> None:
    if len(assignments) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(assignments)} assignments for {len(labels)} labels")
