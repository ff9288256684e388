"""Colours chosen in Oklab, where distances are about what an eye sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LIGHTNESS, _CHROMA, _FIRST_HUE = 0.68, 0.15, 0.08

# Oklab (Björn Ottosson, 2020): to the cube roots of the cones' answers, and from their cubes to linear sRGB
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


def oklab(lightness: float, chroma: float, turn: float) -> NDArray[np.float64]:
    """A colour in Oklab, float64 `[3]`.

    Args:
        lightness: 0 to 1.
        chroma: 0 is grey.
        turn: Hue, of which 1 is once around the wheel.
    """
    angle = 2 * np.pi * turn
    return np.array([lightness, chroma * np.cos(angle), chroma * np.sin(angle)])


def srgb(lab: ArrayLike) -> NDArray[np.float64]:
    """From Oklab `[..., 3]` to sRGB of the same shape, 0..1 where the colour is one that screens can show."""
    linear = (np.asarray(lab, dtype=np.float64) @ _TO_ROOTS.T) ** 3 @ _TO_LINEAR.T
    curved = 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055
    rgb: NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, curved)
    return rgb


def levels(rgb: NDArray[np.float64]) -> NDArray[np.uint8]:
    """sRGB of 0..1 as uint8; what no screen can show is clipped."""
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def hex_colour(colour: ArrayLike) -> str:
    """`#rrggbb` of three levels."""
    return "#{:02x}{:02x}{:02x}".format(*np.asarray(colour).tolist())


def hues(count: int) -> list[str]:
    """That many colours around the wheel, equally light and evenly spaced, `#rrggbb`."""
    turns = [_FIRST_HUE + number / count for number in range(count)]
    return [hex_colour(levels(srgb(oklab(_LIGHTNESS, _CHROMA, turn)))) for turn in turns]
