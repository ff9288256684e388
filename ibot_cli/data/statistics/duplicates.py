"""Images that occur more than once: the same file, the same pixels, or the same look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.groups import LinkedGroups
from ibot_cli.data.statistics.measure import EMBEDDED, Measurements
from ibot_cli.data.statistics.near_duplicates import near_pairs
from ibot_cli.data.statistics.perceptual_hash import Hashes
from ibot_cli.data.statistics.result import Copy, Duplicates

Describe = Callable[[int], tuple[str, str | None, str | None]]
"""From a row to its path, part and class."""


def find_duplicates(
    measured: Measurements,
    describe: Describe,
    *,
    parts: bool,
    labels: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Duplicates:
    """Group the images that are, or look, the same.

    Args:
        measured: The images.
        describe: From a row of them to path, part and class.
        parts: Whether the data have parts.
        labels: Whether they have classes.
        progress: Called with what is done and its total.
    """
    size = len(measured)
    same_file = _earliest(measured.file_digest)
    same_file[measured.num_bytes == EMBEDDED] = -1
    same_pixels = _earliest(measured.pixel_digest)
    like = np.full(size, -1, dtype=np.int64)
    linked = LinkedGroups(size)
    for earlier in (same_file, same_pixels):
        copies = np.flatnonzero(earlier >= 0)
        linked.join(earlier[copies], copies)
    distinct = np.flatnonzero(same_pixels < 0)
    hashes = Hashes(measured.bits[distinct], measured.outlines[distinct], measured.flat[distinct])
    for first, second in near_pairs(hashes, progress):
        early, late = distinct[np.minimum(first, second)], distinct[np.maximum(first, second)]
        linked.join(early, late)
        _keep_smallest(like, late, early)
    kinds = (("file", same_file), ("pixels", same_pixels), ("look", like))
    groups = tuple(tuple(_copy(int(row), kinds, describe) for row in rows) for rows in linked.groups())
    found = [copy.same for group in groups for copy in group]
    return Duplicates(
        groups=groups,
        num_images=len(found),
        num_extra=len(found) - len(groups),
        num_same_file=found.count("file"),
        num_same_pixels=found.count("pixels"),
        num_look_alike=found.count("look"),
        num_across=_several(groups, lambda copy: copy.part) if parts else None,
        num_mixed=_several(groups, lambda copy: copy.label) if labels else None,
    )


def _earliest(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each row the first earlier row with the same digest, or -1."""
    _, first, member = np.unique(digests, return_index=True, return_inverse=True)
    found = first[member] if len(digests) else np.zeros(0, dtype=np.int64)
    return np.where(found == np.arange(len(digests)), -1, found).astype(np.int64)


def _keep_smallest(kept: NDArray[np.int64], rows: NDArray[np.int64], values: NDArray[np.int64]) -> None:
    """Put the smallest value that a row ever got into `kept`, where -1 is none yet."""
    kept[rows[kept[rows] < 0]] = np.iinfo(np.int64).max
    np.minimum.at(kept, rows, values)


def _several(groups: Iterable[Iterable[Copy]], value: Callable[[Copy], str | None]) -> int:
    """Number of groups whose images have more than one value."""
    return sum(len({value(copy) for copy in group}) > 1 for group in groups)


def _copy(row: int, kinds: Sequence[tuple[str, NDArray[np.int64]]], describe: Describe) -> Copy:
    path, part, label = describe(row)
    for same, earlier in kinds:
        if earlier[row] >= 0:
            return Copy(path=path, part=part, label=label, same=same, same_as=describe(int(earlier[row]))[0])
    return Copy(path=path, part=part, label=label, same=None, same_as=None)
