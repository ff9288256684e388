"""Mean and standard deviation of the channels where there are no usual ones: measured on the images themselves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ibot_cli.data.bad_files import list_bad
from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.moments import Moments, histograms, moments_of
from ibot_cli.data.rng import stream
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import IMAGENET
from ibot_cli.errors import DataError

SAMPLE = 500
DIGITS = 5  # more would say more than 500 images do


class ChannelStatistics(NamedTuple):
    """What was measured.

    Attributes:
        mean: Per channel, of levels in 0..1.
        std: Per channel, of all pixels around that mean; 1 for a channel that is the same everywhere.
        reason: How, for people.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    reason: str


def has_usual_statistics(channels: int, bits: int) -> bool:
    """Whether ImageNet's statistics, or their grey averages, are for such images."""
    return channels in IMAGENET and bits == 8


def measure_statistics(source: Source, *, channels: int, bits: int, seed: int = 0) -> ChannelStatistics:
    """Statistics of all images, or of a seeded sample of 500 where there are more; each image weighs the same.

    Args:
        source: The images, with levels of these channels and bits.
        channels: C.
        bits: Of a level.
        seed: Of the sample.

    Raises:
        DataError: None of the images can be read.
    """
    total = len(source)
    chosen = np.arange(total)
    if total > SAMPLE:
        chosen = np.sort(stream(seed, 0, 0, "statistics").choice(total, size=SAMPLE, replace=False))
    unreadable: dict[str, str] = {}
    found: list[Moments] = []
    for index in chosen.tolist():
        try:
            found.append(moments_of(histograms(source.levels(index))))
        except UnreadableImage as error:
            unreadable[error.path] = error.reason
    if not found:
        raise DataError(
            f"None of the {len(chosen):,} files looked at in {source.name} can be used:\n{list_bad(unreadable)}",
            hint=f"The run is for images of {channels} channels (data.channels).",
        )
    pooled = Moments(np.stack([each.mean for each in found]), np.stack([each.square for each in found])).pooled()
    which = f"all {len(found):,} images" if len(chosen) == total else f"{len(found):,} images"
    kind = f"{channels} channels" if channels not in IMAGENET else f"{bits} bits"
    return ChannelStatistics(
        mean=tuple(_rounded(value) for value in pooled.mean),
        std=tuple(_rounded(value) or 1.0 for value in pooled.std),
        reason=f"measured on {which}: there are no usual values for {kind}",
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
