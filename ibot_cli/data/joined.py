"""Several sources as one, without their labels."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from ibot_cli.data.picture import Encoded, Picture, PictureSource
from ibot_cli.data.sources import Source


class JoinedSource(PictureSource):
    """The images of several sources, one source after the other.

    Args:
        name: What people call it.
        sources: At least one.
    """

    labels: np.ndarray | None = None
    classes: list[str] | None = None

    def __init__(self, name: str, sources: Sequence[Source]) -> None:
        self.name = name
        self.notes = list(dict.fromkeys(note for source in sources for note in source.notes))
        self._sources = list(sources)
        self._ends = list(accumulate(len(source) for source in sources))

    def __len__(self) -> int:
        return self._ends[-1]

    def open(self, index: int) -> Picture:
        """The picture; see `ibot_cli.data.sources.Source`."""
        source, place = self._find(index)
        return source.open(place)

    def encoded(self, index: int) -> Encoded | None:
        """The stored file; see `ibot_cli.data.sources.Source`."""
        source, place = self._find(index)
        return source.encoded(place)

    def path(self, index: int) -> str:
        """Where the image is."""
        source, place = self._find(index)
        return source.path(place)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over those of the sources."""
        return hashlib.sha256("\n".join(source.fingerprint for source in self._sources).encode()).hexdigest()

    def _find(self, index: int) -> tuple[Source, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._ends, index)
        return self._sources[number], index - (self._ends[number - 1] if number else 0)
