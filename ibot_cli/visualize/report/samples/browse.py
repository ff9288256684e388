"""Which images a reader can look up their nearest neighbours of, and what those are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ibot_cli.errors import DataError
from ibot_cli.evaluate.faults import each_left_out
from ibot_cli.evaluate.knn.vote import PREFERRED_K, PREFERRED_TEMPERATURE, vote
from ibot_cli.evaluate.retrieval.gallery import Gallery
from ibot_cli.evaluate.retrieval.lookup import FeatureOptions, Lookup, StageProgress, look_up
from ibot_cli.evaluate.retrieval.neighbours import QueryNeighbours
from ibot_cli.visualize.report.samples.choice import choose_queries
from ibot_cli.visualize.report.samples.options import SampleOptions
from ibot_cli.weights.load import LoadedBackbone


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An image and its neighbours.

    Attributes:
        found: The image and what is nearest to it.
        predicted: The class that its neighbours vote for, or None without labels.
    """

    found: QueryNeighbours
    predicted: str | None

    @property
    def wrong(self) -> bool:
        """Whether the vote is for another class than its own."""
        return self.predicted is not None and self.predicted != self.found.label


@dataclass(frozen=True, kw_only=True)
class Browse:
    """What can be browsed.

    Attributes:
        asked: The images, those with a wrong vote first, then by class.
        num_asked: Images that were looked up, among which these were chosen.
        num_wrong: How many of them have a wrong vote; None without labels.
        num_searched: Images that were searched.
        k: Neighbours that vote.
        notes: What the reader should know.
    """

    asked: tuple[Asked, ...]
    num_asked: int
    num_wrong: int | None
    num_searched: int
    k: int
    notes: tuple[str, ...]


def browse_neighbours(
    loaded: LoadedBackbone, gallery: Gallery, options: SampleOptions, progress: StageProgress | None = None
) -> Browse:
    """Look images up and choose some of them, spread over the classes; with labels, half of them wrong ones.

    Right or wrong is the weighted vote of the 20 nearest images, as in `ibot knn-eval`. Where fewer are wrong (or
    right) than wanted, more of the others are taken.

    Raises:
        DataError: No image can be read, or there is no other to find.
        WeightsError: Features are not finite.
    """
    how = FeatureOptions(
        precision=options.precision, device=options.device, workers=options.workers, cache=options.cache
    )
    stages = ("neighbours: images that are searched", "neighbours: images that are looked up")
    most = (options.most_gallery, options.most_queries)
    found = look_up(loaded, gallery, how, most=most, progress=progress, stages=stages)
    if found.others < 1:
        raise DataError(f"{gallery.source.name} has one readable image only, which has no neighbour.")
    every = found.neighbours(max(PREFERRED_K, options.neighbours))
    predicted = _votes(gallery, every) if gallery.measured else None
    labels = _labels(gallery, every)
    wrong = np.array([predicted is not None and predicted[row] != query.label for row, query in enumerate(every)])
    rows = np.concatenate(choose_queries(labels, wrong, options.queries, options.seed))
    return Browse(
        asked=tuple(_asked(every[row], None if predicted is None else predicted[row], options) for row in rows),
        num_asked=len(every),
        num_wrong=None if predicted is None else int(wrong.sum()),
        num_searched=found.others,
        k=min(PREFERRED_K, found.others),
        notes=_notes(found),
    )


def _votes(gallery: Gallery, every: Sequence[QueryNeighbours]) -> list[str]:
    """The class that the neighbours of each query vote for."""
    assert gallery.labels is not None and gallery.classes is not None  # the gallery is `measured`
    places = np.array([[near.place for near in query.neighbours] for query in every])
    similarity = torch.tensor([[near.similarity for near in query.neighbours] for query in every])
    classes = torch.from_numpy(gallery.labels[places])
    leaders = vote(similarity, classes, [PREFERRED_K], PREFERRED_TEMPERATURE, len(gallery.classes))[PREFERRED_K]
    return [gallery.classes[label] for label in leaders[:, 0].tolist()]


def _labels(gallery: Gallery, every: Sequence[QueryNeighbours]) -> NDArray[np.int64]:
    """The class of each query; all the same without labels."""
    labels = gallery.labels if gallery.queries is None else gallery.query_labels
    places = np.array([query.place for query in every], dtype=np.int64)
    return np.zeros(len(every), dtype=np.int64) if labels is None else labels[places]


def _asked(query: QueryNeighbours, predicted: str | None, options: SampleOptions) -> Asked:
    return Asked(found=replace(query, neighbours=query.neighbours[: options.neighbours]), predicted=predicted)


def _notes(found: Lookup) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*found.found.notes, *found.asked.notes, *each_left_out(found.bad)]))
