"""QUERIES as the user names them, image files and folders of images, to be looked up in a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.sources import Source, open_source
from ibot_cli.evaluate.cluster.images import Part
from ibot_cli.evaluate.predict import open_images
from ibot_cli.evaluate.retrieval.gallery import UNKNOWN, Gallery, gallery_fingerprint


def open_search(data: str, queries: Sequence[str], *, channels: int, bits: int = 8, part: Part = "auto") -> Gallery:
    """Open DATA as a gallery for other images.

    A query's class is known when it is an image of the gallery, which is then not among its own neighbours, or when
    its folder has the name of a class. Retrieval is not scored.

    Args:
        data: As for `open_source`.
        queries: Image files and folders of images.
        channels: Of the network.
        bits: Of a level.
        part: The part that is searched; `auto` is all.

    Raises:
        DataError: As `open_source`; or a query is not there, or a folder of queries holds no image.
    """
    asked = open_images(queries, channels, bits)
    source = open_source(data, channels=channels, bits=bits, split="all" if part == "auto" else part)
    classes = None if source.labels is None or source.classes is None else tuple(source.classes)
    paths = [_absolute(asked.path(place)) for place in range(len(asked))]
    own = _places(source, paths)
    return Gallery(
        source=source,
        labels=None if classes is None else source.labels,
        queries=asked,
        query_labels=None if classes is None else _query_labels(paths, own, source, classes),
        own=own,
        classes=classes,
        measured=False,
        sentence="The queries are looked up among the images of the data.",
        notes=tuple(dict.fromkeys([*source.notes, *asked.notes])),
        fingerprint=gallery_fingerprint(classes or (), (source, asked)),
    )


def _absolute(path: str) -> str:
    """As `FileSource.path` names the images of a folder: the folder resolved, not what lies in it."""
    return str(Path(path).parent.resolve() / Path(path).name)


def _places(source: Source, paths: Sequence[str]) -> NDArray[np.int64]:
    """The place in the gallery of each query that is one of its images, else -1."""
    wanted = set(paths)
    named = ((source.path(place), place) for place in range(len(source)))
    places = {path: place for path, place in named if path in wanted}
    return np.array([places.get(path, -1) for path in paths], dtype=np.int64)


def _query_labels(
    paths: Sequence[str], own: NDArray[np.int64], source: Source, classes: tuple[str, ...]
) -> NDArray[np.int64]:
    assert source.labels is not None  # there are classes
    number = {name: place for place, name in enumerate(classes)}
    by_folder = [number.get(Path(path).parent.name, UNKNOWN) for path in paths]
    found = [source.labels[place] if place >= 0 else label for place, label in zip(own, by_folder, strict=True)]
    return np.array(found, dtype=np.int64)
