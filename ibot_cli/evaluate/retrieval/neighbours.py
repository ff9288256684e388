"""The neighbours of each query, as plain data with paths and classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.evaluate.retrieval.gallery import Gallery

_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """One image of the gallery.

    Attributes:
        path: The image.
        place: Its place in the gallery's source.
        similarity: Cosine.
        label: Name of its class, or None.
    """

    path: str
    place: int
    similarity: float
    label: str | None


@dataclass(frozen=True, kw_only=True)
class QueryNeighbours:
    """A query and what is nearest to it.

    Attributes:
        query: The query's path.
        place: Its place in its source.
        label: Name of its class, or None.
        neighbours: Nearest first.
    """

    query: str
    place: int
    label: str | None
    neighbours: tuple[Neighbour, ...]


def name_neighbours(
    gallery: Gallery,
    rows: NDArray[np.int64],
    query_places: NDArray[np.int64],
    similarity: Tensor,
    index: Tensor,
) -> tuple[QueryNeighbours, ...]:
    """Paths and classes for what `nearest_rows` found.

    Args:
        gallery: The images.
        rows: int64 `[n]`, the place in the gallery's source of each feature row.
        query_places: int64 `[m]`, the place of each query in its source.
        similarity: float `[m, k]`.
        index: int64 `[m, k]`, feature rows of the gallery.
    """
    asked = gallery.source if gallery.queries is None else gallery.queries
    labels = gallery.labels if gallery.queries is None else gallery.query_labels

    def neighbour(row: int, value: float) -> Neighbour:
        place = int(rows[row])
        label = _name(gallery, gallery.labels, place)
        return Neighbour(path=gallery.source.path(place), place=place, similarity=round(value, _DIGITS), label=label)

    return tuple(
        QueryNeighbours(
            query=asked.path(int(place)),
            place=int(place),
            label=_name(gallery, labels, int(place)),
            neighbours=tuple(neighbour(row, value) for row, value in zip(found, values, strict=True)),
        )
        for place, found, values in zip(query_places, index.tolist(), similarity.tolist(), strict=True)
    )


def neighbours_csv(found: Sequence[QueryNeighbours]) -> str:
    """A line per neighbour: `query`, `query_label`, `rank`, `path`, `label`, `similarity`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "query_label", "rank", "path", "label", "similarity"])
    writer.writerows(_lines(found))
    return text.getvalue()


def _lines(found: Sequence[QueryNeighbours]) -> Iterator[tuple[object, ...]]:
    for query in found:
        for rank, near in enumerate(query.neighbours, start=1):
            similarity = f"{near.similarity:.{_DIGITS}f}"
            yield query.query, query.label or "", rank, near.path, near.label or "", similarity


def _name(gallery: Gallery, labels: NDArray[np.int64] | None, place: int) -> str | None:
    if gallery.classes is None or labels is None or labels[place] < 0:
        return None
    return gallery.classes[int(labels[place])]
