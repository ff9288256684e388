"""A look at the data before anything runs: what is there, what can be read, how long a sample takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ibot_cli.core.masking import MaskSampler
from ibot_cli.data.assemble import Assembler
from ibot_cli.data.bad_files import BadLimits, list_bad
from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.rng import stream
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import ViewRecipe
from ibot_cli.errors import DataError

SAMPLE = 500
TOGETHER = 4


@dataclass(frozen=True)
class DataSummary:
    """What a look at the data found.

    Attributes:
        name: Of the source.
        num_images: Images in the source, readable or not.
        num_classes: Classes, or None without labels.
        num_checked: Images that were decoded; all of them, or a seeded sample of a large source.
        unreadable: Reason by path, among the checked.
        smallest: (width, height) of the checked image with the fewest pixels.
        largest: (width, height) of the one with the most.
        modes: Number of checked images by stored mode, such as `RGB` or `P`.
        notes: Sentences of the source.
        typical: (width, height) of the checked image with the middle number of pixels.
    """

    name: str
    num_images: int
    num_classes: int | None
    num_checked: int
    unreadable: dict[str, str]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    modes: dict[str, int]
    notes: list[str]
    typical: tuple[int, int]

    def sentences(self) -> list[str]:
        """The summary for people."""
        labels = "no labels" if self.num_classes is None else f"{self.num_classes} classes"
        lines = [f"{self.name}: {self.num_images:,} images, {labels}."]
        modes = ", ".join(f"{count:,} {mode}" for mode, count in self.modes.items())
        checked = "all" if self.num_checked == self.num_images else f"a sample of {self.num_checked:,}"
        small, large = (f"{width} x {height}" for width, height in (self.smallest, self.largest))
        lines.append(f"Decoded {checked}: {modes}; sizes {small} to {large} pixels.")
        if self.unreadable:
            share = len(self.unreadable) / self.num_checked
            lines.append(
                f"{len(self.unreadable):,} of {self.num_checked:,} checked files ({share:.1%}) cannot be read "
                f"and will be replaced:\n{list_bad(self.unreadable)}"
            )
        return lines + self.notes


def probe(source: Source, limit: int = 2000, seed: int = 0) -> DataSummary:
    """Decode the images, or a seeded sample of 500 when there are more than `limit`.

    Raises:
        DataError: None of them can be read.
    """
    total = len(source)
    chosen = range(total) if total <= limit else _sample(total, min(SAMPLE, limit), seed)
    unreadable: dict[str, str] = {}
    sizes: list[tuple[int, int]] = []
    modes: Counter[str] = Counter()
    for index in chosen:
        try:
            picture = source.open(index)
            picture.levels()
        except UnreadableImage as error:
            unreadable[error.path] = error.reason
            continue
        sizes.append(picture.size)
        modes[picture.stored_mode] += 1
    if not modes:
        raise DataError(
            f"None of the {len(chosen):,} files looked at in {source.name} can be read:\n{list_bad(unreadable)}",
            hint="DATA must hold images that can be opened with these data.channels and data.bits.",
        )
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    classes = None if source.classes is None else len(source.classes)
    return DataSummary(
        source.name,
        total,
        classes,
        len(chosen),
        unreadable,
        ordered[0],
        ordered[-1],
        dict(modes.most_common()),
        source.notes,
        ordered[len(ordered) // 2],
    )


def time_loading(
    source: Source, recipe: ViewRecipe, masks: MaskSampler | None, *, samples: int = 16, seconds: float = 1.0
) -> float:
    """Seconds that one sample takes to load on one core: the median of a few parts of a batch, within a time limit.

    A part has several samples, as in training: what a part costs however many it has, is most of the cost of a tiny
    image that is loaded alone.

    Raises:
        DataError: No image can be read.
    """
    total = len(source)
    assembler = Assembler(source, recipe, masks, 0, 0, 0, BadLimits(total, 1.0, total))
    size = min(TOGETHER, total)

    def load(index: int) -> None:
        assembler([((index + place) % total, 0) for place in range(size)])

    return time_samples(total, load, samples=samples, seconds=seconds) / size


def time_samples(total: int, load: Callable[[int], object], *, samples: int = 16, seconds: float = 1.0) -> float:
    """Seconds that `load` takes for one of `total` samples: the median of a few, within a time limit."""
    times: list[float] = []
    for index in _sample(total, samples, 0):
        began = time.perf_counter()
        load(index)
        times.append(time.perf_counter() - began)
        if sum(times) > seconds:
            break
    return float(np.median(times))


def _sample(total: int, count: int, seed: int) -> list[int]:
    """`count` indices in ascending order; a function of the seed."""
    rng = stream(seed, 0, 0, "probe")
    return np.sort(rng.choice(total, size=min(count, total), replace=False)).tolist()  # type: ignore[no-any-return]
