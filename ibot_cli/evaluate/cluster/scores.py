"""k-means of features, and the scores of clusters against labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.evaluate.cluster.agreement import agreement, chance_level, hungarian_accuracy, purity
from ibot_cli.evaluate.cluster.kmeans import KMeans, kmeans
from ibot_cli.evaluate.cluster.result import ClusterOptions, LabelScores


def cluster(
    features: Tensor, k: int, options: ClusterOptions, progress: Callable[[int, int], None] | None = None
) -> KMeans:
    """`kmeans` with the options of an evaluation; features `[n, D]` are taken as they are."""
    return kmeans(
        features,
        k,
        spherical=options.spherical,
        restarts=options.restarts,
        seed=options.seed,
        backend=options.backend,
        device=options.device,
        progress=progress,
    )


def label_scores(
    assignments: NDArray[np.int64], labels: NDArray[np.int64], k: int, num_classes: int, *, seed: int = 0
) -> LabelScores:
    """All scores of K clusters against C classes, with their chance levels.

    Args:
        assignments: Cluster of each image, int64 `[n]`, 0 <= cluster < K.
        labels: Class of each image, int64 `[n]`, 0 <= label < C.
        k: K.
        num_classes: C.
        seed: Of the chance level.
    """
    paired = k == num_classes
    return LabelScores(
        **asdict(agreement(assignments, labels)),
        hungarian_accuracy=hungarian_accuracy(assignments, labels, k, num_classes) if paired else None,
        purity=purity(assignments, labels),
        chance=chance_level(assignments, labels, k, num_classes, seed=seed),
    )
