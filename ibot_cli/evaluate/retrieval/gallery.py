"""The images of a retrieval: those that are searched, and those that are looked up among them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.scan import natural_key
from ibot_cli.data.sources import Source, open_source
from ibot_cli.evaluate.cluster.images import Part, class_names, has_test_part

UNKNOWN = -1


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """What is searched, and what for.

    Attributes:
        source: The images that are searched.
        labels: int64 `[n]`, or None.
        queries: The images that are looked up; None when each image of `source` is, among the others.
        query_labels: int64 `[m]` in the same numbering, `UNKNOWN` where not known, or None.
        own: int64 `[m]`, the place in `source` of a query that is one of its images, else -1; None without `queries`.
        classes: Names; a label is a place in this list.
        measured: Whether all labels are known and of at least two classes, so that retrieval can be scored.
        sentence: Which images are looked up among which.
        notes: What the reader should know.
        fingerprint: sha256 hex over images and labels.
    """

    source: Source
    labels: NDArray[np.int64] | None
    queries: Source | None
    query_labels: NDArray[np.int64] | None
    own: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    measured: bool
    sentence: str
    notes: tuple[str, ...]
    fingerprint: str


def open_gallery(data: str, *, channels: int, bits: int = 8, part: Part = "auto") -> Gallery:
    """Open DATA so that its own images are looked up.

    Args:
        data: As for `open_source`.
        channels: Of the network.
        bits: Of a level.
        part: The part that is searched, image by image among the others; `auto` looks the test part up in the training
            part where the data have both, else takes all images.

    Raises:
        DataError: As `open_source`.
    """
    if part == "auto" and has_test_part(data):
        train, test = (open_source(data, channels=channels, bits=bits, split=name) for name in ("train", "test"))
        return _labelled(train, test, "Each test image is looked up among the training images.")
    source = open_source(data, channels=channels, bits=bits, split="all" if part == "auto" else part)
    return _labelled(source, None, "Each image is looked up among all the others.")


def _labelled(source: Source, queries: Source | None, sentence: str) -> Gallery:
    """One numbering of the classes by name for both, where both have labels."""
    sources = [source] if queries is None else [source, queries]
    names = [class_names(part) for part in sources]
    known = [part for part in names if part is not None]
    classes: tuple[str, ...] | None = None
    labels: list[NDArray[np.int64]] = []
    if len(known) == len(sources):
        classes = tuple(sorted(set().union(*known), key=natural_key))
        number = {name: place for place, name in enumerate(classes)}
        labels = [np.array([number[name] for name in part], dtype=np.int64) for part in known]
    return Gallery(
        source=source,
        labels=labels[0] if labels else None,
        queries=queries,
        query_labels=labels[1] if len(labels) > 1 else None,
        own=None if queries is None else np.full(len(queries), -1, dtype=np.int64),
        classes=classes,
        measured=classes is not None and len(classes) > 1,
        sentence=sentence,
        notes=tuple(dict.fromkeys([note for part in sources for note in part.notes] + _unmeasured(source, classes))),
        fingerprint=gallery_fingerprint(classes or (), sources),
    )


def _unmeasured(source: Source, classes: tuple[str, ...] | None) -> list[str]:
    """Why retrieval cannot be scored, if it cannot."""
    if classes is None:
        return [
            f"{source.name} has no labels, so mAP and precision are left out; they need a folder of images per class."
        ]
    if len(classes) < 2:
        return [f"{source.name} has one class only, {classes[0]}: every answer would be right, so mAP is left out."]
    return []


def gallery_fingerprint(classes: Sequence[str], sources: Sequence[Source]) -> str:
    """sha256 hex over class names, images and labels."""
    digest = hashlib.sha256("\n".join(classes).encode(errors="surrogateescape"))
    for source in sources:
        digest.update(source.fingerprint.encode())
        digest.update(b"" if source.labels is None else np.ascontiguousarray(source.labels).tobytes())
    return digest.hexdigest()
