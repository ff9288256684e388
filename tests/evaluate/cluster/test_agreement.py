import itertools

import numpy as np
import pytest
from sklearn import metrics

from ibot_cli.evaluate.cluster.agreement import (
    agreement,
    chance_level,
    cluster_sizes,
    hungarian_accuracy,
    nmi,
    purity,
)

LABELS = np.repeat(np.arange(4), 25)


def noisy(num_clusters: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(100) < 0.5, LABELS, rng.integers(0, num_clusters, 100))


def test_only_the_partition_counts() -> None:
    found = agreement(LABELS * -7 + 100, LABELS)
    assert (found.nmi, found.ami, found.ari, found.fmi) == pytest.approx((1, 1, 1, 1))


def test_chance_and_one_cluster() -> None:
    many = np.random.default_rng(0).integers(0, 50, len(LABELS))
    found = agreement(many, LABELS)
    assert found.nmi > 0.3 and abs(found.ami) < 0.1 and abs(found.ari) < 0.05
    assert agreement(np.zeros_like(LABELS), LABELS).nmi == pytest.approx(0)


def test_by_hand() -> None:
    found = agreement(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]))
    assert found.fmi == pytest.approx((1 * 1 / 2) ** 0.5)  # 1 pair together in both; 2 by cluster, 1 by label
    mutual, cluster, label = np.log(2), np.log(2), 1.5 * np.log(2)
    assert found.nmi == pytest.approx(mutual / ((cluster + label) / 2))


@pytest.mark.parametrize("num_clusters", [3, 4, 30])
def test_the_figures_of_scikit_learn(num_clusters: int) -> None:
    clusters = noisy(num_clusters)
    found = agreement(clusters, LABELS)
    assert found.nmi == metrics.normalized_mutual_info_score(LABELS, clusters)
    assert found.ami == metrics.adjusted_mutual_info_score(LABELS, clusters)
    assert found.ari == metrics.adjusted_rand_score(LABELS, clusters)
    assert found.fmi == metrics.fowlkes_mallows_score(LABELS, clusters)


def test_lengths_must_agree() -> None:
    for measure in (agreement, purity, lambda first, second: hungarian_accuracy(first, second, 9, 9)):
        with pytest.raises(ValueError, match="2 assignments for 100 labels"):
            measure(np.zeros(2, np.int64), LABELS)


@pytest.mark.parametrize("num_clusters", [3, 4, 6])
def test_hungarian_accuracy_is_the_best_of_all_pairings(num_clusters: int) -> None:
    clusters = noisy(num_clusters) % num_clusters
    larger = max(num_clusters, 4)
    best = max(np.mean(np.array(order)[clusters] == LABELS) for order in itertools.permutations(range(larger)))
    assert hungarian_accuracy(clusters, LABELS, num_clusters, 4) == pytest.approx(best)


def test_hungarian_accuracy_with_clusters_and_classes_that_never_occur() -> None:
    """Shifted numbers and holes: nobody is in clusters 0, 2 and 5, nothing is of class 0."""
    clusters, labels = np.array([1, 1, 3, 3, 4, 4]), np.array([2, 2, 1, 1, 3, 1])
    assert hungarian_accuracy(clusters, labels, 6, 6) == pytest.approx(5 / 6)
    assert hungarian_accuracy(clusters, labels, 8192, 4) == pytest.approx(5 / 6)


def test_hungarian_accuracy_gives_each_class_to_one_cluster() -> None:
    clusters, labels = np.array([0, 0, 1, 1, 2]), np.zeros(5, np.int64)
    assert hungarian_accuracy(clusters, labels, 3, 3) == pytest.approx(2 / 5)
    assert purity(clusters, labels) == 1


def test_purity_by_brute_force() -> None:
    clusters = noisy(7) * 1000  # numbers need not be small
    majority = sum(np.bincount(LABELS[clusters == cluster]).max() for cluster in np.unique(clusters))
    assert purity(clusters, LABELS) == majority / 100
    assert purity(np.arange(100), LABELS) == 1
    assert purity(np.zeros(100, np.int64), LABELS) == 0.25


def test_chance_grows_with_the_number_of_clusters_and_is_what_random_clusters_reach() -> None:
    rng = np.random.default_rng(1)
    levels = []
    for num_clusters in (4, 20, 60):
        clusters = rng.integers(0, num_clusters, 100)
        found = chance_level(clusters, LABELS, num_clusters, 4, draws=40)
        others = [nmi(rng.permutation(clusters), LABELS) for _ in range(40)]
        assert found.nmi == pytest.approx(np.mean(others), abs=0.01)
        assert (found.hungarian is None) == (num_clusters != 4)
        levels.append(found)
    assert levels[0].nmi < levels[1].nmi < levels[2].nmi and levels[0].nmi < 0.1 and levels[2].nmi > 0.25
    assert levels[0].purity < levels[1].purity < levels[2].purity
    assert levels[0].hungarian is not None and 0.25 < levels[0].hungarian < levels[0].purity < 0.45


def test_chance_is_seeded_and_keeps_the_sizes() -> None:
    clusters = noisy(4)
    first, again, other = (chance_level(clusters, LABELS, 4, 4, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    alone = chance_level(np.zeros(100, np.int64), LABELS, 1, 4)  # one cluster stays one cluster
    assert alone.nmi == pytest.approx(0) and alone.purity == 0.25


def test_sizes() -> None:
    found = cluster_sizes(np.array([5, 5, 5, 0, 2, 2]), 7)
    assert (found.used, found.empty, found.smallest, found.median, found.largest) == (3, 4, 1, 2, 3)
