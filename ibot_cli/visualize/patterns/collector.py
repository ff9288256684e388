"""The best patches of every prototype, and counts over all patches, from a stream of images.

Memory is that of K prototypes x top-k members (and K x classes), however many images pass.

Shapes: B images, N patches, K prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

_PENDING = 2**17  # candidates that wait until it pays to sort them in


@dataclass(frozen=True, eq=False)
class Assigned:
    """The prototype of every patch of some images, `[B, N]` each.

    Attributes:
        prototype: int64.
        score: float32, raw.
        probability: float32.
    """

    prototype: NDArray[np.int64]
    score: NDArray[np.float32]
    probability: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Columns of equal length, a row per patch."""

    prototype: NDArray[np.int32]
    image: NDArray[np.int64]
    patch: NDArray[np.int32]
    score: NDArray[np.float32]
    probability: NDArray[np.float32]

    @classmethod
    def none(cls) -> Candidates:
        """No rows."""
        return cls(
            np.empty(0, np.int32),
            np.empty(0, np.int64),
            np.empty(0, np.int32),
            np.empty(0, np.float32),
            np.empty(0, np.float32),
        )

    @classmethod
    def joined(cls, parts: list[Candidates]) -> Candidates:
        """All rows of several."""
        return cls(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)))

    def __len__(self) -> int:
        return len(self.prototype)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Candidates:
        return Candidates(*(getattr(self, column.name)[rows] for column in fields(self)))


class Collector:
    """Counts every patch that is not dark and keeps each prototype's best ones, at most one per image.

    Of equal scores the lower image wins, then the lower patch; neither the order of the images nor how they are cut
    into batches changes the members.

    Args:
        num_prototypes: K.
        top_k: Members per prototype.
        num_classes: 0 without labels.

    Attributes:
        counts: Patches that are not dark, int64 `[K]`.
        dark: Patches that are, int64 `[K]`.
        probability_sum: Of the patches that are not dark, float64 `[K]`.
        histogram: Their labels, uint32 `[K, classes]`.
        num_images: Images seen.
        num_patches: Patches per image; 0 before the first.
    """

    def __init__(self, num_prototypes: int, top_k: int, num_classes: int = 0) -> None:
        self.num_prototypes, self.top_k = num_prototypes, top_k
        self.counts = np.zeros(num_prototypes, dtype=np.int64)
        self.dark = np.zeros(num_prototypes, dtype=np.int64)
        self.probability_sum = np.zeros(num_prototypes, dtype=np.float64)
        self.histogram = np.zeros((num_prototypes, num_classes), dtype=np.uint32)
        self.num_images = self.num_patches = 0
        self._kept = Candidates.none()  # sorted by prototype, the best first
        self._floor = np.full(num_prototypes, -np.inf, dtype=np.float32)  # what a new member must reach
        self._pending: list[Candidates] = []
        self._num_pending = 0

    def add(
        self,
        images: NDArray[np.int64],
        assigned: Assigned,
        dark: NDArray[np.bool_],
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        """Take in some images; an image must come whole, and once.

        Args:
            images: Their places in the source, `[B]`.
            assigned: `[B, N]`.
            dark: Which patches are left out, `[B, N]`.
            labels: Of the images, `[B]`; negative for none.
        """
        self.num_images += len(images)
        self.num_patches = assigned.prototype.shape[1]
        prototype = assigned.prototype.ravel()
        bright = np.flatnonzero(~dark.ravel())
        self.dark += np.bincount(prototype[dark.ravel()], minlength=self.num_prototypes)
        prototype, probability = prototype[bright], assigned.probability.ravel()[bright]
        self.counts += np.bincount(prototype, minlength=self.num_prototypes)
        np.add.at(self.probability_sum, prototype, probability)  # in order, so that batches do not change the sum
        place, patch = np.divmod(bright, self.num_patches)
        if labels is not None and self.histogram.shape[1]:
            known = labels[place] >= 0
            np.add.at(self.histogram, (prototype[known], labels[place][known]), np.uint32(1))
        score = assigned.score.ravel()[bright]
        self._offer(
            Candidates(prototype.astype(np.int32), images[place], patch.astype(np.int32), score, probability),
            prototype * len(images) + place,
        )

    def members(self, prototype: int) -> Candidates:
        """The best patches of one prototype, the best first."""
        self._settle()
        start, end = np.searchsorted(self._kept.prototype, [prototype, prototype + 1])
        return self._kept[slice(int(start), int(end))]

    def _offer(self, found: Candidates, group: NDArray[np.int64]) -> None:
        """Queue the best patch of each group (a prototype in an image), where it may become a member."""
        promising = np.flatnonzero(found.score >= self._floor[found.prototype])
        group = group[promising]
        order = np.lexsort((-found.score[promising], group))  # stable: of equal scores the lower patch is first
        best = promising[order[_starts(group[order])]]
        if len(best):
            self._pending.append(found[best])
            self._num_pending += len(best)
        if self._num_pending >= _PENDING:
            self._settle()

    def _settle(self) -> None:
        """Sort the queue in and keep the best of each prototype."""
        if not self._pending:
            return
        rows = Candidates.joined([self._kept, *self._pending])
        self._pending, self._num_pending = [], 0
        rows = rows[np.lexsort((rows.image, -rows.score, rows.prototype))]
        starts = np.flatnonzero(_starts(rows.prototype))
        lengths = np.diff(starts, append=len(rows))
        rank = np.arange(len(rows)) - np.repeat(starts, lengths)
        self._kept = rows[rank < self.top_k]
        full = lengths >= self.top_k
        last = starts[full] + self.top_k - 1
        self._floor[rows.prototype[last]] = rows.score[last]


def _starts(values: NDArray[np.int64] | NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where a sorted column has a new value."""
    return np.concatenate([np.ones(min(len(values), 1), dtype=bool), values[1:] != values[:-1]])
