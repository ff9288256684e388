"""Colours: one per head, as different as can be for any number of heads, and a scale from little to much.

Colours are chosen in Oklab, where distances are about what an eye sees.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Rgb = tuple[int, int, int]
Levels = NDArray[np.uint8]
_HUES, _CHROMAS, _LIGHTNESSES = 48, (0.06, 0.11, 0.16), (0.55, 0.67, 0.79, 0.91)
_FIRST = (0.67, 0.12, 240.0)  # lightness, chroma, hue: a calm blue
_SCALE = ((0.16, 0.03, 285.0), (0.36, 0.11, 290.0), (0.55, 0.15, 350.0), (0.75, 0.14, 45.0), (0.95, 0.07, 95.0))
# Oklab (Björn Ottosson, 2020): to the cube roots of the cones' answers, and from their cubes to linear sRGB.
_TO_ROOTS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
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
    stops = np.array([_oklab(*stop) for stop in _SCALE])
    at = np.linspace(0, 1, len(stops))
    lab = np.stack([np.interp(np.linspace(0, 1, 256), at, stops[:, axis]) for axis in range(3)], axis=1)
    return np.rint(np.clip(_srgb(lab), 0, 1) * 255).astype(np.uint8)


@cache
def _farthest_first() -> tuple[Rgb, ...]:
    hues = np.arange(_HUES) * 360 / _HUES
    lab = np.array([_oklab(light, chroma, hue) for light in _LIGHTNESSES for chroma in _CHROMAS for hue in hues])
    colours = _srgb(lab)
    inside = ((colours >= 0) & (colours <= 1)).all(axis=1)
    lab, colours = np.vstack([_oklab(*_FIRST), lab[inside]]), np.vstack([_srgb(_oklab(*_FIRST)), colours[inside]])
    order, distance = [0], np.linalg.norm(lab - lab[0], axis=1)
    while distance.max() > 1e-6:
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[order[-1]], axis=1))
    levels = np.rint(np.clip(colours[order], 0, 1) * 255).astype(int)
    return tuple((int(red), int(green), int(blue)) for red, green, blue in levels)


def _oklab(lightness: float, chroma: float, hue: float) -> NDArray[np.float64]:
    angle = np.radians(hue)
    return np.array([lightness, chroma * np.cos(angle), chroma * np.sin(angle)])


def _srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB, 0..1 where the colour is one that screens can show."""
    linear = (lab @ _TO_ROOTS.T) ** 3 @ _TO_LINEAR.T
    curved = 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055
    rgb: NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, curved)
    return rgb
