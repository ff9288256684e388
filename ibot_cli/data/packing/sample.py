"""A few images packed in advance: how much room the pack takes, and how much faster its images decode."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ibot_cli.data.decode import PixelFormat, UnreadableImage, open_bytes
from ibot_cli.data.packing.encode import Packed, pack_image
from ibot_cli.data.packing.options import PackOptions
from ibot_cli.data.packing.shard_writer import entry
from ibot_cli.data.sources import Source
from ibot_cli.errors import DataError
from ibot_cli.quantities import size_text

IMAGES = 32
SECONDS = 2.0  # large images are sampled in smaller number
ROUNDS = 3
CERTAIN = 0.8  # a sample is no census: only a disk with less room than this share of what it says is refused


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a few images tell about a pack.

    Attributes:
        bytes_per_image: In a shard, by split.
        decode_ms: Milliseconds to decode a stored and a packed image to levels, mean; None where they are the same or
            nothing is stored.
    """

    bytes_per_image: dict[str, float]
    decode_ms: tuple[float, float] | None


def sample_of(parts: Mapping[str, Source], options: PackOptions) -> Sample:
    """Pack up to 32 evenly spaced images of each split, for the sake of their sizes and times."""
    bytes_per_image, times = {}, []
    for split, source in parts.items():
        sizes = []
        for index, packed in _packed(source, options):
            sizes.append(len(entry(str(index), packed, 0)))
            if not packed.kept and packed.stored:
                times.append(_decode_seconds(source, index, packed))
        bytes_per_image[split] = statistics.fmean(sizes) if sizes else 0.0
    if not times:
        return Sample(bytes_per_image=bytes_per_image, decode_ms=None)
    before, after = (statistics.fmean(column) * 1e3 for column in zip(*times, strict=True))
    return Sample(bytes_per_image=bytes_per_image, decode_ms=(before, after))


def check_room(out: Path, sample: Sample, left: Mapping[str, int]) -> None:
    """Raise when the disk is surely too small.

    Args:
        out: The folder of the pack.
        sample: Of its images.
        left: Images by split that are not written yet.

    Raises:
        DataError: With what is needed and what is free.
    """
    need = sum(sample.bytes_per_image[split] * count for split, count in left.items())
    free = shutil.disk_usage(out).free
    if need * CERTAIN > free:
        raise DataError(
            f"The shards will take about {size_text(round(need))}; {out} has {size_text(free)} left.",
            hint="Make room, name a folder on another disk, or make the images smaller with --short-side or --quality.",
        )


def _packed(source: Source, options: PackOptions) -> Iterator[tuple[int, Packed]]:
    """Index and packed form of readable images, the first in any case, until the time is over."""
    begun = time.perf_counter()
    count = min(IMAGES, len(source))
    for index in sorted({number * len(source) // count for number in range(count)}):
        try:
            yield index, pack_image(source, index, options)
        except UnreadableImage:
            continue
        if time.perf_counter() - begun > SECONDS:
            return


def _decode_seconds(source: Source, index: int, packed: Packed) -> tuple[float, float]:
    """Of the stored and of the packed image, taken in turns."""
    stored = source.encoded(index)
    contents = (packed.content if stored is None else stored.content, packed.content)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for content, column in zip(contents, seconds, strict=True):
            begun = time.perf_counter()
            open_bytes(content, source.path(index), PixelFormat(channels=3)).levels()
            column.append(time.perf_counter() - begun)
    return statistics.median(seconds[0]), statistics.median(seconds[1])
