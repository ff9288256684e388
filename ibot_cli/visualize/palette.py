"""Colours that are told apart with ease: equally light, evenly spaced in hue."""

from __future__ import annotations

import math

_LIGHTNESS, _CHROMA, _FIRST_HUE = 0.68, 0.15, 0.08

# OKLab to the cube roots of cone responses, and these to linear sRGB
_TO_CONES = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
_TO_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


def hues(count: int, *, lightness: float = _LIGHTNESS, chroma: float = _CHROMA) -> list[str]:
    """That many colours around the wheel, `#rrggbb`.

    Args:
        count: At least 1.
        lightness: 0 to 1, of OKLCH.
        chroma: 0 is grey; what the screen cannot show is clipped.

    Source:
        OKLab by Bjoern Ottosson (2020), in which equal steps of hue look equally large.
    """
    return [_rgb(lightness, chroma, _FIRST_HUE + number / count) for number in range(count)]


def _rgb(lightness: float, chroma: float, turn: float) -> str:
    a, b = chroma * math.cos(2 * math.pi * turn), chroma * math.sin(2 * math.pi * turn)
    cones = [(row[0] * lightness + row[1] * a + row[2] * b) ** 3 for row in _TO_CONES]
    linear = [sum(factor * cone for factor, cone in zip(row, cones, strict=True)) for row in _TO_RGB]
    return "#" + "".join(f"{round(255 * _encoded(min(1.0, max(0.0, value)))):02x}" for value in linear)


def _encoded(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
