"""The evaluation of a network by the clusters it forms: its own prototypes, and k-means of its features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ibot_cli.evaluate.cluster.agreement import CHANCE_DRAWS, cluster_sizes, nmi
from ibot_cli.evaluate.cluster.baselines import StageProgress, measure_cluster_baselines
from ibot_cli.evaluate.cluster.center_search import choose_backend
from ibot_cli.evaluate.cluster.images import Classes, ClusterImages, Part, check_ks, choose_ks, classes_of, open_images
from ibot_cli.evaluate.cluster.kmeans import MAX_ITERATIONS, KMeans
from ibot_cli.evaluate.cluster.prototypes import nearest_prototypes, num_prototypes
from ibot_cli.evaluate.cluster.result import (
    ClusterBaseline,
    Clustering,
    ClusterOptions,
    ClusterResult,
    ClusterRow,
    Grouping,
)
from ibot_cli.evaluate.cluster.scores import cluster, label_scores
from ibot_cli.evaluate.cluster.stability import MOST_IMAGES, silhouette, stability
from ibot_cli.evaluate.cluster.standardization import standardized
from ibot_cli.evaluate.faults import each_left_out
from ibot_cli.evaluate.features import FeatureTable, feature_pass
from ibot_cli.weights.load import LoadedBackbone


def evaluate_clusters(
    loaded: LoadedBackbone,
    data: str,
    *,
    ks: Sequence[int] | None = None,
    part: Part = "auto",
    baselines: bool = True,
    options: ClusterOptions | None = None,
    progress: StageProgress | None = None,
) -> Clustering:
    """Cluster images by a network's own prototypes, where it has any, and by k-means of its class tokens.

    Args:
        loaded: The network and how its images are prepared.
        data: DATA as given.
        ks: Numbers of clusters for k-means; by default that of the classes, or without labels a few that suit.
        part: Which images; by default the test part where the data have one of their own, else all.
        baselines: Whether to cluster random weights and raw pixels too, where there are labels (cached per data set).
        options: How to cluster.
        progress: Called with the stage, what is done and its total.

    Raises:
        DataError: No images, or nothing readable.
        UsageError: A K is larger than the number of images, or faiss is asked for and cannot be used.
        WeightsError: Features are not finite.

    Source:
        Prototypes: unsupervised classification of the authors' iBOT code (arXiv 2111.07832), for any number of
        prototypes and classes.
    """
    options = options or ClusterOptions()
    images = open_images(data, channels=loaded.channels, bits=loaded.bits, part=part)
    if ks is not None:
        check_ks(ks, len(images.source))
    table = _features(loaded, images, options, progress)
    classes, excuse = classes_of(images.source, table.index)
    chosen = choose_ks(ks, len(table), None if classes is None else len(classes.names))
    features = table.pooled("cls")
    prepared = standardized(features) if options.standardize else features
    rows, groupings = [], []
    for grouping, found in _groupings(loaded, features, prepared, chosen, options, progress):
        rows.append(_row(grouping, found, prepared, classes, options))
        groupings.append(grouping)
    measured: tuple[ClusterBaseline, ...] = ()
    if baselines and classes is not None:
        measured = measure_cluster_baselines(loaded, images, chosen, options, progress)
    notes = _notes(loaded, images, table, excuse, rows, measured)
    return Clustering(
        result=_result(loaded, data, images, len(table), classes, rows, measured, options, notes),
        images=images,
        index=table.index,
        labels=None if classes is None else classes.labels,
        names=None if classes is None else classes.names,
        groupings=tuple(groupings),
    )


def _result(
    loaded: LoadedBackbone,
    data: str,
    images: ClusterImages,
    num_images: int,
    classes: Classes | None,
    rows: Sequence[ClusterRow],
    baselines: tuple[ClusterBaseline, ...],
    options: ClusterOptions,
    notes: Sequence[str],
) -> ClusterResult:
    return ClusterResult(
        rows=tuple(rows),
        baselines=baselines,
        num_images=num_images,
        num_classes=None if classes is None else len(classes.names),
        split=images.sentence,
        prototypes=None if loaded.head is None else num_prototypes(loaded.head),
        spherical=options.spherical,
        standardized=options.standardize,
        restarts=options.restarts,
        seed=options.seed,
        backend=choose_backend(options.backend, torch.device(options.device)),
        chance_draws=CHANCE_DRAWS,
        silhouette_metric=_metric(options),
        silhouette_images=min(num_images, MOST_IMAGES),
        precision=options.precision,
        weights=loaded.description,
        weights_hash=loaded.weights_hash,
        data=data,
        fingerprint=images.fingerprint,
        notes=tuple(notes),
    )


def _features(
    loaded: LoadedBackbone, images: ClusterImages, options: ClusterOptions, progress: StageProgress | None
) -> FeatureTable:
    return feature_pass(
        loaded,
        images.source,
        precision=options.precision,
        device=options.device,
        workers=options.workers,
        cache=options.cache,
        progress=None if progress is None else partial(progress, "features"),
    )


def _groupings(
    loaded: LoadedBackbone,
    features: Tensor,
    prepared: Tensor,
    ks: Sequence[int],
    options: ClusterOptions,
    progress: StageProgress | None,
) -> Iterator[tuple[Grouping, KMeans | None]]:
    """The prototypes, if there are any, then k-means for each K."""
    if loaded.head is not None:
        assignments, scores = nearest_prototypes(loaded.head, features, device=options.device)
        k = num_prototypes(loaded.head)
        yield (
            Grouping(name="prototypes", method="prototypes", k=k, assignments=assignments.numpy(), centrality=scores),
            None,
        )
    for k in ks:
        report = None if progress is None else partial(progress, f"k-means, K = {k:,}")
        found = cluster(prepared, k, options, report)
        yield (
            Grouping(
                name=f"kmeans_{k}", method="kmeans", k=k, assignments=found.assignments, centrality=-found.squared
            ),
            found,
        )


def _row(
    grouping: Grouping, found: KMeans | None, prepared: Tensor, classes: Classes | None, options: ClusterOptions
) -> ClusterRow:
    scores = None
    if classes is not None:
        scores = label_scores(grouping.assignments, classes.labels, grouping.k, len(classes.names), seed=options.seed)
    apart = silhouette(prepared, grouping.assignments, metric=_metric(options), seed=options.seed)
    row = ClusterRow(
        method=grouping.method,
        k=grouping.k,
        sizes=cluster_sizes(grouping.assignments, grouping.k),
        scores=scores,
        silhouette=apart,
    )
    if found is None:
        return row
    return replace(
        row,
        nmi_of_runs=() if classes is None else tuple(nmi(run, classes.labels) for run in found.runs),
        stability=stability(found.runs),
        inertia=found.inertia,
        converged=found.converged,
    )


def _metric(options: ClusterOptions) -> str:
    return "cosine" if options.spherical else "euclidean"


def _notes(
    loaded: LoadedBackbone,
    images: ClusterImages,
    table: FeatureTable,
    excuse: str | None,
    rows: Sequence[ClusterRow],
    baselines: Sequence[ClusterBaseline],
) -> list[str]:
    notes = [*loaded.notes, *table.notes, *each_left_out(table.bad)]
    if loaded.head is None:
        notes.append("These weights have no projection head, so there are no prototypes to cluster by.")
    if excuse is not None:
        notes.append(excuse)
    unfinished = [f"{row.k:,}" for row in rows if row.converged is False]
    if unfinished:
        notes.append(f"k-means did not come to rest within {MAX_ITERATIONS} iterations at K = {', '.join(unfinished)}.")
    if baselines and baselines[0].num_images < len(table):
        notes.append(
            f"The baselines cluster {baselines[0].num_images:,} images only; compare their AMI rather than their NMI."
        )
    return notes
