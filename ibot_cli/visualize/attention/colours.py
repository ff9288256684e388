"""Colours: one per head, as different as can be for any number of heads, and a scale from little to much."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ibot_cli.visualize.palette import levels, oklab, srgb

Rgb = tuple[int, int, int]
Levels = NDArray[np.uint8]
_HUES, _CHROMAS, _LIGHTNESSES = 48, (0.06, 0.11, 0.16), (0.55, 0.67, 0.79, 0.91)
_FIRST = (0.67, 0.12, 240 / 360)  # lightness, chroma, hue: a calm blue
_SCALE = (
    (0.16, 0.03, 285 / 360),
    (0.36, 0.11, 290 / 360),
    (0.55, 0.15, 350 / 360),
    (0.75, 0.14, 45 / 360),
    (0.95, 0.07, 95 / 360),
)


def head_colours(count: int) -> list[Rgb]:
    """A colour per head; the first ones do not depend on the number of heads.

    Each is the one farthest from those before it, of many colours that can be told from a dark ground; when all of
    them are in use, they come again.
    """
    chosen = _farthest_first()
    return [chosen[place % len(chosen)] for place in range(count)]


def heat(values: NDArray[np.floating]) -> Levels:
    """From 0 (dark) to 1 (light) through violet and orange, uint8 `[..., 3]`; what is outside is clipped."""
    places = np.clip(values, 0, 1) * 255
    colours: Levels = _heat_table()[np.rint(places).astype(np.int64)]
    return colours


@cache
def _heat_table() -> Levels:
    stops = np.array([oklab(*stop) for stop in _SCALE])
    at = np.linspace(0, 1, len(stops))
    lab = np.stack([np.interp(np.linspace(0, 1, 256), at, stops[:, axis]) for axis in range(3)], axis=1)
    return levels(srgb(lab))


@cache
def _farthest_first() -> tuple[Rgb, ...]:
    turns = np.arange(_HUES) / _HUES
    lab = np.array([oklab(light, chroma, turn) for light in _LIGHTNESSES for chroma in _CHROMAS for turn in turns])
    inside = ((srgb(lab) >= 0) & (srgb(lab) <= 1)).all(axis=1)
    lab = np.vstack([oklab(*_FIRST), lab[inside]])
    order, distance = [0], np.linalg.norm(lab - lab[0], axis=1)
    while distance.max() > 1e-6:
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[order[-1]], axis=1))
    return tuple((red, green, blue) for red, green, blue in levels(srgb(lab[order])).tolist())
