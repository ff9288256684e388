"""The duplicates of a data set as plain data: which images, in which part, how alike."""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Sequence
from dataclasses import dataclass

_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class DuplicateImage:
    """One image of a group.

    Attributes:
        path: The image.
        place: Its place among all images.
        part: `train` or `test` (or another folder's name) where the data have parts, else None.
        label: Name of its class, or None.
        similarity: Cosine to the most similar other image of the group.
        identical_to: Path of the first image of the group with the same decoded pixels, if that is another one.
    """

    path: str
    place: int
    part: str | None
    label: str | None
    similarity: float
    identical_to: str | None


@dataclass(frozen=True, kw_only=True)
class DuplicatesResult:
    """Groups of images that are nearly or exactly the same.

    Attributes:
        groups: The images of each group, in the order of the data.
        num_images: Readable images.
        num_grouped: Images in a group.
        num_extra: Images in groups beside the first of each.
        num_identical: Images whose decoded pixels are those of an earlier one.
        num_across: Groups with images of several parts; None where the data have no parts.
        num_mixed: Groups with images of several classes; None without labels.
        threshold: A cosine above it connects two images.
        typical_cosine: Median cosine of random pairs of images; the nearer to the threshold, the less a group means.
        pooling: Which tokens make a feature.
        precision: Arithmetic of the feature pass.
        weights: What was used.
        weights_hash: sha256 of its tensors.
        data: DATA as given.
        fingerprint: sha256 of the data's identity.
        notes: What the reader should know.
    """

    groups: tuple[tuple[DuplicateImage, ...], ...]
    num_images: int
    num_grouped: int
    num_extra: int
    num_identical: int
    num_across: int | None
    num_mixed: int | None
    threshold: float
    typical_cosine: float | None
    pooling: str
    precision: str
    weights: str
    weights_hash: str
    data: str
    fingerprint: str
    notes: tuple[str, ...] = ()


def certain_first(groups: Sequence[Sequence[DuplicateImage]]) -> list[tuple[int, list[DuplicateImage]]]:
    """Groups with their numbers from 1, for a view that shows the first ones: identical images before all others."""
    ordered = []
    for number, group in enumerate(groups, start=1):
        copied = {image.identical_to for image in group}
        ordered.append((number, sorted(group, key=lambda image: not _certain(image, copied))))
    return sorted(ordered, key=lambda each: all(image.identical_to is None for image in each[1]))


def _certain(image: DuplicateImage, copied: Container[str | None]) -> bool:
    return image.identical_to is not None or image.path in copied


def duplicates_csv(groups: Sequence[Sequence[DuplicateImage]]) -> str:
    """A line per image: `group`, `path`, `part`, `label`, `similarity`, `identical_to`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "path", "part", "label", "similarity", "identical_to"])
    for number, group in enumerate(groups, start=1):
        for image in group:
            similarity = f"{image.similarity:.{_DIGITS}f}"
            row = (number, image.path, image.part or "", image.label or "", similarity, image.identical_to or "")
            writer.writerow(row)
    return text.getvalue()
