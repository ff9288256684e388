"""What k-means finds in features without any learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from ibot_cli.evaluate.baselines import MAX_TRAIN, SEEDS, baseline_index, cached_value, random_weights, raw_pixels
from ibot_cli.evaluate.cluster.images import ClusterImages, classes_of
from ibot_cli.evaluate.cluster.result import ClusterBaseline, ClusterOptions
from ibot_cli.evaluate.cluster.scores import cluster, label_scores
from ibot_cli.evaluate.cluster.standardization import standardized
from ibot_cli.evaluate.features import feature_pass
from ibot_cli.weights.load import LoadedBackbone

StageProgress = Callable[[str, int, int], None]


def measure_cluster_baselines(
    loaded: LoadedBackbone,
    images: ClusterImages,
    ks: Sequence[int],
    options: ClusterOptions,
    progress: StageProgress | None = None,
) -> tuple[ClusterBaseline, ...]:
    """k-means on random weights, prepared like the network's features, and on raw pixels as they are.

    Pixels are neither standardised nor compared by cosine: of the four ways, plain distances served them best on the
    training digits, and a baseline should be as strong as it can be.

    Args:
        loaded: The network whose fresh copies and image preparation are used.
        images: At most 10,000 of them are clustered, a seeded choice.
        ks: Numbers of clusters; those above the number of images are left out.
        options: How to cluster.
        progress: Called with the stage, what is done and its total.
    """

    def measure() -> dict[str, Any]:
        plain = replace(options, standardize=False, spherical=False)
        random = [
            _scores(random_weights(loaded, seed), f"random weights, seed {seed}", images, ks, options, progress)
            for seed in SEEDS
        ]
        pixels = _scores(raw_pixels(loaded), "raw pixels", images, ks, plain, progress)
        return {"random weights": random, "raw pixels": [pixels]}

    chosen = (
        options.restarts,
        options.spherical,
        options.standardize,
        options.seed,
        options.backend,
        options.precision,
    )
    key = f"{loaded.architecture} {loaded.preparation_key} {images.fingerprint} {sorted(ks)} {chosen}"
    stored = cached_value("clusters", key, measure) if options.cache else measure()
    return tuple(_mean(name, per_seed) for name, seeds in stored.items() for per_seed in zip(*seeds, strict=True))


def _scores(
    network: LoadedBackbone,
    name: str,
    images: ClusterImages,
    ks: Sequence[int],
    options: ClusterOptions,
    progress: StageProgress | None,
) -> list[dict[str, Any]]:
    """Scores of each K, as plain data."""
    table = feature_pass(
        network,
        images.source,
        precision=options.precision,
        index=baseline_index(len(images.source), MAX_TRAIN),
        device=options.device,
        workers=options.workers,
        cache=False,
        progress=None if progress is None else partial(progress, name),
    )
    classes, _ = classes_of(images.source, table.index)
    if classes is None:  # the choice fell on images of one class
        return []
    features = table.pooled("cls")
    features = standardized(features) if options.standardize else features
    found = []
    for k in ks:
        if k <= len(features):
            clusters = cluster(features, k, options).assignments
            scores = label_scores(clusters, classes.labels, k, len(classes.names), seed=options.seed)
            found.append({"k": k, "num_images": len(features), "scores": asdict(scores)})
    return found


def _mean(features: str, per_seed: Sequence[dict[str, Any]]) -> ClusterBaseline:
    scores = [each["scores"] for each in per_seed]

    def mean(name: str) -> float:
        return float(np.mean([score[name] for score in scores]))

    def chance(name: str) -> float:
        return float(np.mean([score["chance"][name] for score in scores]))

    return ClusterBaseline(
        features=features,
        seeds=len(scores),
        k=int(per_seed[0]["k"]),
        num_images=int(per_seed[0]["num_images"]),
        nmi=mean("nmi"),
        nmi_chance=chance("nmi"),
        ami=mean("ami"),
        ari=mean("ari"),
        fmi=mean("fmi"),
        hungarian_accuracy=None if scores[0]["hungarian_accuracy"] is None else mean("hungarian_accuracy"),
        purity=mean("purity"),
        purity_chance=chance("purity"),
        nmi_per_seed=tuple(float(score["nmi"]) for score in scores),
    )
