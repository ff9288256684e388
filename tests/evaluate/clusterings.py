"""Clusterings made by hand."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch

from ibot_cli.evaluate.cluster.images import ClusterImages
from ibot_cli.evaluate.cluster.result import Clustering, ClusterResult, Grouping
from tests.evaluate.images import Coloured

K = 8


def clustering(
    labels: list[int] | None,
    assignments: list[list[int]],
    *,
    methods: tuple[str, ...] = ("kmeans",),
    index: list[int] | None = None,
    num: int = 0,
    bad: tuple[int, ...] = (),
) -> Clustering:
    """Clusters of `Coloured` images; the later an image, the more central it is."""
    count = len(assignments[0])
    source = Coloured(labels, num or count, bad)
    chosen = np.arange(count) if index is None else np.array(index)
    groupings = [
        Grouping(
            name="prototypes" if method == "prototypes" else f"kmeans_{K}",
            method=method,
            k=K,
            assignments=np.array(clusters),
            centrality=torch.arange(count).float(),
        )
        for method, clusters in zip(methods, assignments, strict=True)
    ]
    return Clustering(
        result=cast(ClusterResult, cast(Any, None)),
        images=ClusterImages(source=source, sentence="", fingerprint=""),
        index=chosen,
        labels=None if labels is None else np.array(labels)[chosen],
        names=None if labels is None else tuple(source.classes or ()),
        groupings=tuple(groupings),
    )
