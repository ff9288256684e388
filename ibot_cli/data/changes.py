"""What happens to the pixels of a view: drawn where the view is cut, carried out where training runs.

The operations, their order, their probabilities and their ranges are the published ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NUM_DRAWS = 14
NONE = -1
COLUMNS = 12
FLIP, JITTER, GRAY, BLUR_RADIUS, SOLARIZE = 0, slice(1, 9), 9, 10, 11


class Strengths(NamedTuple):
    """How strongly and how often one kind of view is changed; the fields of `ViewsConfig` of the same names."""

    flip_prob: float
    jitter_prob: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gray_prob: float
    blur_prob: float
    blur_radius: tuple[float, float]
    solarize_prob: float


class Changes(NamedTuple):
    """What happens to one view.

    Attributes:
        flip: Whether it is mirrored.
        jitter: (operation, factor) in the order of application; hue factors are turns.
        gray: Whether it becomes grey.
        blur_radius: Standard deviation of the Gaussian blur in pixels, or 0 for none.
        solarize: Whether levels at or above the threshold are inverted.
    """

    flip: bool
    jitter: tuple[tuple[int, float], ...]
    gray: bool
    blur_radius: float
    solarize: bool


def draw_changes(strengths: Strengths, draws: Sequence[float]) -> Changes:
    """What the uniform numbers `draws` (`NUM_DRAWS` of them) mean.

    Each decision has its own number, so that a changed probability leaves the other decisions as they were.
    """
    flip, jitter, *numbers, gray, blur, radius, solarize = draws
    low, high = strengths.blur_radius
    return Changes(
        flip=flip < strengths.flip_prob,
        jitter=_draw_jitter(strengths, numbers) if jitter < strengths.jitter_prob else (),
        gray=gray < strengths.gray_prob,
        blur_radius=low + (high - low) * radius if blur < strengths.blur_prob else 0.0,
        solarize=solarize < strengths.solarize_prob,
    )


def _draw_jitter(strengths: Strengths, numbers: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Operations in random order (the first four numbers are sort keys) with their factors (the other four)."""
    order = sorted(range(4), key=numbers.__getitem__)
    spreads = (strengths.brightness, strengths.contrast, strengths.saturation, strengths.hue)
    return tuple((op, (op != HUE) + spreads[op] * (2 * numbers[4 + op] - 1)) for op in order if spreads[op])


def pack_changes(changes: Sequence[Changes]) -> Tensor:
    """The changes of many views as one tensor, which travels from a loader process to the training loop.

    Returns:
        float32 `[n, COLUMNS]`: flip, four times (operation or `NONE`, factor), grey, blur radius, solarise.
    """
    numbers = np.fromiter(chain.from_iterable(map(_row, changes)), dtype=np.float32, count=len(changes) * COLUMNS)
    return torch.from_numpy(numbers).view(-1, COLUMNS)


def _row(changes: Changes) -> tuple[float, ...]:
    flip, jitter, gray, blur_radius, solarize = changes
    return (flip, *chain.from_iterable(jitter), *(NONE, 0.0) * (4 - len(jitter)), gray, blur_radius, solarize)
