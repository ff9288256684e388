"""The statistics of DATA, in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.bad_files import list_bad
from ibot_cli.data.decode import PixelFormat
from ibot_cli.data.moments import Moments
from ibot_cli.data.packing.parts import notes_of
from ibot_cli.data.places import own_parts
from ibot_cli.data.rng import stream
from ibot_cli.data.sources import Source, Split, open_source
from ibot_cli.data.statistics.advice import advise
from ibot_cli.data.statistics.duplicates import Describe, find_duplicates
from ibot_cli.data.statistics.measure import EMBEDDED, Measurements, Measuring
from ibot_cli.data.statistics.result import Channels, ClassCount, Sizes, Spread, Statistics
from ibot_cli.data.workers import Key, in_order
from ibot_cli.errors import DataError

BATCH = 16
SPLITS: tuple[Split, ...] = ("train", "test")
StageProgress = Callable[[str, int, int], None]


def measure_data(
    data: str,
    *,
    channels: int = 3,
    bits: int = 8,
    limit: int | None = None,
    workers: int = 0,
    progress: StageProgress | None = None,
) -> Statistics:
    """Look at every image of DATA, its training and its test part.

    Every image is read and decoded once, at its full size. The result does not depend on the number of workers.

    Args:
        data: As for `open_source`.
        channels: What the images are read as.
        bits: Of a level.
        limit: Look at a seeded sample of so many images; all when None.
        workers: Processes; 0 works in this one.
        progress: Called with the stage, the images done and their total.

    Raises:
        DataError: As `open_source`, or no image can be read.
    """
    parts = _open_parts(data, channels, bits)
    measuring = Measuring(list(parts.values()), PixelFormat(channels=channels, bits=bits))
    chosen = _choose(sum(len(source) for source in parts.values()), limit)
    blocks: list[Measurements] = []
    for block in in_order(measuring, _keys(chosen), workers=workers, pin_memory=False):
        blocks.append(block)
        if progress is not None:
            progress("looked at", min(len(blocks) * BATCH, len(chosen)), len(chosen))
    return _summary(data, parts, measuring, Measurements.joined(blocks), channels, bits, progress)


def _open_parts(data: str, channels: int, bits: int) -> dict[str, Source]:
    """The images of DATA by part; a single part is named `all`."""
    names = own_parts(data)[: len(SPLITS)] or ["all"]
    opened = (open_source(data, channels=channels, bits=bits, split=split) for split in SPLITS)
    return dict(zip(names, opened, strict=False))


def _choose(total: int, limit: int | None) -> NDArray[np.int64]:
    """Places of the images to look at, ascending."""
    if limit is None or limit >= total:
        return np.arange(total, dtype=np.int64)
    chosen = stream(0, 0, 0, "statistics").choice(total, size=limit, replace=False)
    return np.sort(chosen).astype(np.int64)


def _keys(chosen: NDArray[np.int64]) -> Iterator[list[Key]]:
    for start in range(0, len(chosen), BATCH):
        yield [(place, 0) for place in chosen[start : start + BATCH].tolist()]


def _summary(
    data: str,
    parts: Mapping[str, Source],
    measuring: Measuring,
    measured: Measurements,
    channels: int,
    bits: int,
    progress: StageProgress | None,
) -> Statistics:
    unreadable = dict(measured.unreadable.values())
    if not len(measured):
        raise DataError(
            f"None of the {len(unreadable):,} images looked at in {data} can be read:\n{list_bad(unreadable)}",
            hint="--channels and --bits say what the images are read as, like data.channels and data.bits of a run.",
        )
    describe = _describer(parts, measuring, measured)
    stored = measured.num_bytes[measured.num_bytes != EMBEDDED]
    duplicates = find_duplicates(
        measured,
        describe,
        parts=len(parts) > 1,
        labels=any(source.labels is not None for source in parts.values()),
        progress=None if progress is None else partial(_compared, progress, len(measured)),
    )
    found = Statistics(
        data=data,
        parts={name: len(source) for name, source in parts.items()},
        num_images=sum(len(source) for source in parts.values()),
        num_checked=len(measured) + len(measured.unreadable),
        num_readable=len(measured),
        unreadable=unreadable,
        classes=_count_classes(parts),
        sizes=_sizes(measured),
        file_bytes=Spread.of(stored) if len(stored) else None,
        total_bytes=int(stored.sum()) if len(stored) else None,
        formats=dict(measured.formats.most_common()),
        modes=dict(measured.modes.most_common()),
        stored_grey=int(measured.stored_grey.sum()),
        content_grey=int(measured.content_grey.sum()) if channels == 3 else None,
        bits=bits,
        channels=_channels(measured),
        flat=tuple(describe(int(row))[0] for row in np.flatnonzero(measured.flat)),
        duplicates=duplicates,
        notes=tuple(notes_of(data, parts)),
        advice=(),
    )
    return advise(found)


def _describer(parts: Mapping[str, Source], measuring: Measuring, measured: Measurements) -> Describe:
    """Path, part and class of a measured image."""
    names, sources = list(parts), list(parts.values())

    def describe(row: int) -> tuple[str, str | None, str | None]:
        part, index = measuring.find(int(measured.places[row]))
        return sources[part].path(index), names[part] if len(names) > 1 else None, _class_name(sources[part], index)

    return describe


def _compared(progress: StageProgress, images: int, done: int, total: int) -> None:
    progress("compared", images * done // total, images)


def _class_name(source: Source, index: int) -> str | None:
    if source.labels is None:
        return None
    label = int(source.labels[index])
    return str(label) if source.classes is None else source.classes[label]


def _count_classes(parts: Mapping[str, Source]) -> tuple[ClassCount, ...] | None:
    """Images by class, in the order of the classes; None where a part has no labels."""
    classes = next(iter(parts.values())).classes
    labels = {name: source.labels for name, source in parts.items() if source.labels is not None}
    if classes is None or len(labels) < len(parts):
        return None
    counts = {name: np.bincount(numbers, minlength=len(classes)) for name, numbers in labels.items()}
    return tuple(
        ClassCount(name=title, images={name: int(count[label]) for name, count in counts.items()})
        for label, title in enumerate(classes)
    )


def _sizes(measured: Measurements) -> Sizes:
    width, height = measured.width, measured.height
    pixels = width.astype(np.int64) * height
    ends = [int(pixels.argmin()), int(pixels.argmax())]
    smallest, largest = ((int(width[row]), int(height[row])) for row in ends)
    return Sizes(
        width=Spread.of(width),
        height=Spread.of(height),
        short_side=Spread.of(np.minimum(width, height)),
        aspect=Spread.of(width / height),
        megapixels=Spread.of(pixels / 1e6),
        num_sizes=len(np.unique(np.stack([width, height]), axis=1)[0]),
        smallest=smallest,
        largest=largest,
    )


def _channels(measured: Measurements) -> Channels:
    each = Moments(measured.mean, measured.square)
    pooled = each.pooled()
    mean, std, within = (tuple(values.tolist()) for values in (pooled.mean, pooled.std, each.std.mean(axis=0)))
    return Channels(mean=mean, std=std, std_within=within)
