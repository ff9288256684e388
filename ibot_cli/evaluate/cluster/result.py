"""What clustering found, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.evaluate.cluster.agreement import Agreement, Chance, ClusterSizes
from ibot_cli.evaluate.cluster.center_search import Backend
from ibot_cli.evaluate.cluster.images import ClusterImages


@dataclass(frozen=True, kw_only=True)
class LabelScores(Agreement):
    """Agreement with labels, beside what random assignments to clusters of the same sizes reach.

    Attributes:
        hungarian_accuracy: Accuracy of the best pairing of clusters and classes; None unless there are as many of both.
        purity: Share of images of their cluster's majority class; grows with the number of clusters.
        chance: The same scores by chance.
    """

    hungarian_accuracy: float | None
    purity: float
    chance: Chance


@dataclass(frozen=True, kw_only=True)
class ClusterRow:
    """One way to cluster the images.

    Attributes:
        method: `prototypes` (the network's own) or `kmeans`.
        k: Clusters, empty ones included.
        sizes: Images per cluster.
        scores: Agreement with labels; None without labels.
        nmi_of_runs: NMI of each run of k-means by itself; empty for prototypes and without labels.
        silhouette: Of a seeded sample; None where it is not defined.
        stability: Mean adjusted Rand index between runs of k-means from different seeds; None for prototypes and for a
            single run.
        inertia: Sum of squared distances to the centres; None for prototypes.
        converged: Whether k-means came to rest; None for prototypes.
    """

    method: str
    k: int
    sizes: ClusterSizes
    scores: LabelScores | None
    nmi_of_runs: tuple[float, ...] = ()
    silhouette: float | None
    stability: float | None = None
    inertia: float | None = None
    converged: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ClusterBaseline:
    """k-means on features without any learning; means over seeds.

    Attributes:
        features: `random weights` or `raw pixels`.
        seeds: Networks that were drawn; 1 for pixels.
        k: Clusters.
        num_images: Images, at most 10,000.
        nmi: Normalised mutual information with the labels.
        nmi_chance: The same by chance, for clusters of these sizes.
        ami: Adjusted mutual information.
        ari: Adjusted Rand index.
        fmi: Fowlkes-Mallows index.
        hungarian_accuracy: As in `LabelScores`.
        purity: As in `LabelScores`.
        purity_chance: The same by chance.
        nmi_per_seed: Its values.
    """

    features: str
    seeds: int
    k: int
    num_images: int
    nmi: float
    nmi_chance: float
    ami: float
    ari: float
    fmi: float
    hungarian_accuracy: float | None
    purity: float
    purity_chance: float
    nmi_per_seed: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ClusterResult:
    """Clusters of the images of one data set.

    Attributes:
        rows: One per method and number of clusters.
        baselines: k-means on random weights and raw pixels; empty without labels and where not measured.
        num_images: Readable images.
        num_classes: Classes among them; None without labels.
        split: Which images.
        prototypes: Of the network's head; None when the weights have none.
        spherical: Whether k-means is by cosine.
        standardized: Whether each feature was brought to mean 0 and deviation 1 for k-means.
        restarts: Runs of k-means; the best by inertia counts.
        seed: Of everything random.
        backend: What found the nearest centres.
        chance_draws: Random assignments that chance levels are means of.
        silhouette_metric: `cosine` or `euclidean`.
        silhouette_images: Images of its sample.
        precision: Arithmetic of the feature pass.
        weights: What was evaluated.
        weights_hash: sha256 of its tensors.
        data: DATA as given.
        fingerprint: sha256 of the data's identity.
        notes: What the reader should know.
    """

    rows: tuple[ClusterRow, ...]
    baselines: tuple[ClusterBaseline, ...]
    num_images: int
    num_classes: int | None
    split: str
    prototypes: int | None
    spherical: bool
    standardized: bool
    restarts: int
    seed: int
    backend: str
    chance_draws: int
    silhouette_metric: str
    silhouette_images: int
    precision: str
    weights: str
    weights_hash: str
    data: str
    fingerprint: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouping:
    """The cluster of each image by one method.

    Attributes:
        name: `prototypes` or `kmeans_K`.
        method: `prototypes` or `kmeans`.
        k: Clusters.
        assignments: int64 `[n]`.
        centrality: float32 `[n]`, larger nearer to the cluster's centre.
    """

    name: str
    method: str
    k: int
    assignments: NDArray[np.int64]
    centrality: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Clustering:
    """A result with what its files and pictures are made from.

    Attributes:
        result: The figures.
        images: What was clustered.
        index: int64 `[n]`, the place in the source of each readable image.
        labels: int64 `[n]`, or None.
        names: Class names, or None.
        groupings: One per row of the result.
    """

    result: ClusterResult
    images: ClusterImages
    index: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    names: tuple[str, ...] | None
    groupings: tuple[Grouping, ...]


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How to cluster.

    Attributes:
        restarts: Runs of k-means, each from other first centres.
        spherical: By cosine.
        standardize: Bring each feature to mean 0 and deviation 1 first.
        seed: Of everything random.
        backend: What finds the nearest centres: `auto`, `torch` or `faiss`.
        precision: Arithmetic of the feature pass.
        device: Where to compute.
        workers: Loader processes.
        cache: Whether features and baselines may come from and go to the cache.
    """

    restarts: int = 10
    spherical: bool = True
    standardize: bool = True
    seed: int = 0
    backend: Backend = "auto"
    precision: str = "fp32"
    device: torch.device | str = "cpu"
    workers: int = 0
    cache: bool = True
