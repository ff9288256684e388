"""Features of a gallery and of what is looked up in it, and the two questions that are asked of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.evaluate.baselines import baseline_index
from ibot_cli.evaluate.cluster.center_search import Backend
from ibot_cli.evaluate.features import FeatureTable, feature_pass
from ibot_cli.evaluate.retrieval.average_precision import Ranked, rank_gallery
from ibot_cli.evaluate.retrieval.gallery import Gallery
from ibot_cli.evaluate.retrieval.nearest import nearest_rows
from ibot_cli.evaluate.retrieval.neighbours import QueryNeighbours, name_neighbours
from ibot_cli.weights.load import LoadedBackbone

StageProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """How features are computed and searched.

    Attributes:
        pooling: Which tokens make a feature.
        precision: Arithmetic of the feature pass, `fp32` or `bf16`.
        device: Where to compute.
        workers: Loader processes.
        cache: Whether features may come from and go to the cache.
        backend: What searches; see `nearest_rows`. The answer is the same.
    """

    pooling: str = "cls"
    precision: str = "fp32"
    device: torch.device | str = "cpu"
    workers: int = 0
    cache: bool = True
    backend: Backend = "auto"


@dataclass(frozen=True)
class Lookup:
    """Features of the readable images.

    Attributes:
        gallery: The images.
        found: Features of the gallery.
        asked: Features of the queries; the same table where each image of the gallery is a query.
        options: How they were computed.
    """

    gallery: Gallery
    found: FeatureTable
    asked: FeatureTable
    options: FeatureOptions

    @property
    def alone(self) -> bool:
        """Whether the queries are the gallery itself, each left out of its own neighbours."""
        return self.gallery.queries is None

    @property
    def others(self) -> int:
        """How many images every query can find at least."""
        own = self.gallery.own
        return len(self.found) - int(self.alone or (own is not None and bool((own >= 0).any())))

    @property
    def bad(self) -> Mapping[str, str]:
        """Unreadable images: path -> reason."""
        return {**self.found.bad, **self.asked.bad}

    @cached_property
    def bank(self) -> Tensor:
        """Features of the gallery `[n, D]`."""
        return self.found.pooled(self.options.pooling)

    @cached_property
    def queries(self) -> Tensor:
        """Features of the queries `[m, D]`."""
        return self.bank if self.alone else self.asked.pooled(self.options.pooling)

    def neighbours(self, k: int) -> tuple[QueryNeighbours, ...]:
        """The k nearest images of each query."""
        exclude = None if self.alone else torch.from_numpy(self._own_rows())
        similarity, index = nearest_rows(
            self.bank,
            self.queries,
            k,
            exclude_self=self.alone,
            exclude=exclude,
            device=self.options.device,
            backend=self.options.backend,
        )
        return name_neighbours(self.gallery, self.found.index, self.asked.index, similarity, index)

    def rank(self, progress: Callable[[int, int], None] | None = None) -> Ranked:
        """Scores of each query's whole ranking, by class."""
        labels = self.gallery.labels
        query_labels = labels if self.alone else self.gallery.query_labels
        assert labels is not None and query_labels is not None  # the gallery is `measured`
        return rank_gallery(
            self.bank,
            labels[self.found.index],
            self.queries,
            query_labels[self.asked.index],
            exclude_self=self.alone,
            device=self.options.device,
            progress=progress,
        )

    def _own_rows(self) -> NDArray[np.int64]:
        """int64 `[m]`, the feature row of each query that is an image of the gallery, else -1."""
        assert self.gallery.own is not None  # there are queries
        rows = np.full(len(self.gallery.source) + 1, -1, dtype=np.int64)  # the last one is for -1
        rows[self.found.index] = np.arange(len(self.found))
        return rows[self.gallery.own[self.asked.index]]


def look_up(
    loaded: LoadedBackbone,
    gallery: Gallery,
    options: FeatureOptions,
    *,
    most: tuple[int, int] | None = None,
    progress: StageProgress | None = None,
    stages: tuple[str, str] = ("gallery images", "queries"),
) -> Lookup:
    """Compute the features of a gallery and of its queries.

    Args:
        loaded: The backbone and how its images are prepared.
        gallery: The images.
        options: How to compute.
        most: At most so many images of the gallery and of the queries, a seeded choice; all when None.
        progress: Called with the stage, the images done and their total.
        stages: What the two passes are called.

    Raises:
        DataError: No image of the gallery, or no query, can be read.
    """

    def features(place: int) -> FeatureTable:
        source = (gallery.source, gallery.queries)[place]
        assert source is not None  # the second place only where there are queries
        return feature_pass(
            loaded,
            source,
            poolings=(options.pooling,),
            precision=options.precision,
            index=None if most is None else baseline_index(len(source), most[place]),
            device=options.device,
            workers=options.workers,
            cache=options.cache,
            progress=None if progress is None else partial(progress, stages[place]),
        )

    found = features(0)
    return Lookup(gallery, found, found if gallery.queries is None else features(1), options)
