"""What is measured of each image; it is read once and decoded once, at its full size."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.decode import PixelFormat, UnreadableImage, open_bytes
from ibot_cli.data.moments import FULL_SCALE, histograms, moments_of
from ibot_cli.data.picture import Picture, is_grey_mode
from ibot_cli.data.sources import Source
from ibot_cli.data.statistics.perceptual_hash import hash_thumbnails, thumbnail
from ibot_cli.data.workers import Key

GREY_TOLERANCE = 2 / 255
EMBEDDED = -1
_ROWS = 16


@dataclass(frozen=True, eq=False)
class Measurements:
    """Some images, column by column; n of them could be read.

    Attributes:
        places: int64 `[n]`, among all images.
        width: int32 `[n]`, pixels, upright.
        height: int32 `[n]`.
        num_bytes: int64 `[n]`, of the stored file; -1 for embedded data.
        mean: float64 `[n, C]`, of levels scaled to 0..1.
        square: float64 `[n, C]`, mean of their squares.
        content_grey: bool `[n]`: stored in colour, but no pixel's channels differ by more than 2 of 255 levels.
        stored_grey: bool `[n]`.
        file_digest: uint64 `[n]`, of the stored bytes.
        pixel_digest: uint64 `[n]`, of size and levels.
        bits: See `ibot_cli.data.perceptual_hash.Hashes`.
        outlines: See there.
        flat: See there.
        formats: Number of images by file format.
        modes: Number by stored mode.
        unreadable: Place -> path and reason.
    """

    places: NDArray[np.int64]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    num_bytes: NDArray[np.int64]
    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    content_grey: NDArray[np.bool_]
    stored_grey: NDArray[np.bool_]
    file_digest: NDArray[np.uint64]
    pixel_digest: NDArray[np.uint64]
    bits: NDArray[np.uint64]
    outlines: NDArray[np.int8]
    flat: NDArray[np.bool_]
    formats: Counter[str]
    modes: Counter[str]
    unreadable: dict[int, tuple[str, str]]

    def __len__(self) -> int:
        return len(self.places)

    def pin_memory(self) -> Measurements:
        """Itself: nothing of it goes to a GPU."""
        return self

    @staticmethod
    def joined(parts: Sequence[Measurements]) -> Measurements:
        """All images of all parts, in their order."""
        columns: dict[str, Any] = {}
        for field in fields(Measurements):
            values = [getattr(part, field.name) for part in parts]
            if isinstance(values[0], np.ndarray):
                columns[field.name] = np.concatenate(values)
            elif isinstance(values[0], Counter):
                columns[field.name] = sum(values, Counter())
            else:
                columns[field.name] = {place: bad for value in values for place, bad in value.items()}
        return Measurements(**columns)


class Measuring:
    """Measures images by their place; what worker processes do.

    Args:
        sources: The parts of the data; places count through them.
        pixels: What the images become.
    """

    def __init__(self, sources: Sequence[Source], pixels: PixelFormat) -> None:
        self._sources = list(sources)
        self._ends = np.cumsum([len(source) for source in sources])
        self._pixels = pixels

    def find(self, place: int) -> tuple[int, int]:
        """Number of the part, and index in it."""
        part = int(np.searchsorted(self._ends, place, side="right"))
        return part, place - (int(self._ends[part - 1]) if part else 0)

    def path(self, place: int) -> str:
        """Where an image is."""
        part, index = self.find(place)
        return self._sources[part].path(index)

    def __call__(self, keys: list[Key]) -> Measurements:
        """Measure the images of some keys, whose first number is the place."""
        rows, thumbnails, unreadable = [], [], {}
        for place, _ in keys:
            try:
                row, small = self._measure(place)
            except UnreadableImage as error:
                unreadable[place] = (error.path, error.reason)
                continue
            rows.append(row)
            thumbnails.append(small)
        return _columns(rows, thumbnails, unreadable, self._pixels.channels)

    def _measure(self, place: int) -> tuple[_Row, NDArray[np.float32]]:
        part, index = self.find(place)
        source = self._sources[part]
        stored = source.encoded(index)
        if stored is None:
            picture, content = source.open(index), None
        else:
            picture, content = open_bytes(stored.content, source.path(index), self._pixels), stored.content
        levels = picture.levels()
        counts = histograms(levels)
        moments = moments_of(counts)
        row = _Row(
            place,
            picture,
            EMBEDDED if content is None else len(content),
            0 if content is None else _digest(content),
            _digest(repr(levels.shape).encode(), counts.tobytes(), zlib.crc32(levels.data).to_bytes(4, "little")),
            moments.mean,
            moments.square,
            _looks_grey(levels),
        )
        return row, thumbnail(levels)


@dataclass(frozen=True, eq=False)
class _Row:
    place: int
    picture: Picture
    num_bytes: int
    file_digest: int
    pixel_digest: int
    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    grey: bool

    @property
    def stored_grey(self) -> bool:
        return is_grey_mode(self.picture.stored_mode)


def _columns(
    rows: Sequence[_Row],
    thumbnails: Sequence[NDArray[np.float32]],
    unreadable: dict[int, tuple[str, str]],
    channels: int,
) -> Measurements:
    hashes = hash_thumbnails(np.array(thumbnails, dtype=np.float32).reshape(-1, 32, 32))
    sizes = np.array([row.picture.size for row in rows], dtype=np.int32).reshape(-1, 2)
    stored_grey = np.array([row.stored_grey for row in rows], dtype=np.bool_)
    return Measurements(
        places=np.array([row.place for row in rows], dtype=np.int64),
        width=sizes[:, 0],
        height=sizes[:, 1],
        num_bytes=np.array([row.num_bytes for row in rows], dtype=np.int64),
        mean=np.array([row.mean for row in rows], dtype=np.float64).reshape(-1, channels),
        square=np.array([row.square for row in rows], dtype=np.float64).reshape(-1, channels),
        content_grey=np.array([row.grey for row in rows], dtype=np.bool_) & ~stored_grey,
        stored_grey=stored_grey,
        file_digest=np.array([row.file_digest for row in rows], dtype=np.uint64),
        pixel_digest=np.array([row.pixel_digest for row in rows], dtype=np.uint64),
        bits=hashes.bits,
        outlines=hashes.outlines,
        flat=hashes.flat,
        formats=Counter(row.picture.format or "embedded" for row in rows),
        modes=Counter(row.picture.stored_mode for row in rows),
        unreadable=unreadable,
    )


def _digest(*parts: bytes) -> int:
    """64 bits of BLAKE2b; among a million images two of 64 bits are equal by chance once in 37 million times."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little")


def _looks_grey(levels: NDArray[np.generic]) -> bool:
    """Whether the three channels of every pixel agree; a few rows tell that most colour images are not."""
    if levels.shape[2] != 3:
        return False
    limit = round(GREY_TOLERANCE * FULL_SCALE[levels.dtype])
    return all(_spread(some) <= limit for some in (levels[::_ROWS], levels))


def _spread(levels: NDArray[np.generic]) -> int:
    """Largest difference between two channels of a pixel."""
    red, green, blue = (levels[..., channel] for channel in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    return int((high - np.minimum(np.minimum(red, green), blue)).max())
