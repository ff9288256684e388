"""Fixed subsets of the labelled images, balanced over the classes: 1 %, 10 %, or so many of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.rng import stream
from ibot_cli.errors import DataError


def choose_labels(
    labels: NDArray[np.int64],
    *,
    fraction: float | None = None,
    per_class: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """A fixed choice of images, balanced over the classes.

    Each class has an order of its own, which depends on the seed and the class only; the choice is the beginning of
    it. A smaller choice is therefore a part of a larger one with the same seed.

    Args:
        labels: int64 `[n]`.
        fraction: Share of each class, rounded; a class gives at least one image. See `lifted_classes`.
        per_class: Images of each class. With neither, everything is chosen.
        seed: Of the choice.
        classes: Names of the classes, for messages.

    Returns:
        int64 positions in `labels`, ascending.

    Raises:
        DataError: A class has fewer than `per_class` images.
        ValueError: Both `fraction` and `per_class` are given.
    """
    if fraction is not None and per_class is not None:
        raise ValueError("give fraction or per_class, not both")
    chosen = []
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        if per_class is not None and per_class > len(members):
            raise _too_few(labels, per_class, classes)
        count = per_class or (len(members) if fraction is None else max(round(fraction * len(members)), 1))
        chosen.append(stream(seed, label, 0, "labels").permutation(members)[:count])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def lifted_classes(labels: NDArray[np.int64], fraction: float) -> int:
    """How many classes `fraction` would leave without any image, so that one was taken all the same."""
    return sum(round(fraction * count) < 1 for count in np.unique(labels, return_counts=True)[1].tolist())


def _too_few(labels: NDArray[np.int64], per_class: int, classes: Sequence[str] | None) -> DataError:
    values, counts = np.unique(labels, return_counts=True)
    place = int(counts.argmin())
    name = classes[values[place]] if classes else f"number {values[place]}"
    short = int((counts < per_class).sum())
    others = f", and {short - 1} more {'class has' if short == 2 else 'classes have'} too few" if short > 1 else ""
    return DataError(
        f"The class {name} has {counts[place]:,} images, fewer than labels.per_class = {per_class}{others}.",
        hint=f"Set labels.per_class to at most {counts[place]}, or use labels.fraction.",
    )
