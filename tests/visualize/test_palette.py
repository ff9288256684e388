"""Oklab and the colours that are chosen in it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageColor

from ibot_cli.visualize.palette import hex_colour, hues, levels, oklab, srgb


@pytest.mark.parametrize(
    ("lab", "rgb"),
    [
        ((1.0, 0.0, 0.0), (255, 255, 255)),
        ((0.0, 0.0, 0.0), (0, 0, 0)),
        # red, green and blue in Oklab, to three digits as CSS Color 4 lists them in its samples
        ((0.62796, 0.22486, 0.12585), (255, 0, 0)),
        ((0.86644, -0.23389, 0.17950), (0, 255, 0)),
        ((0.45201, -0.03246, -0.31153), (0, 0, 255)),
    ],
)
def test_known_colours(lab: tuple[float, float, float], rgb: tuple[int, int, int]) -> None:
    assert np.abs(levels(srgb(lab)).astype(int) - rgb).max() <= 1


def test_hue_is_a_share_of_the_wheel() -> None:
    np.testing.assert_allclose(oklab(0.5, 0.2, 0.25), [0.5, 0, 0.2], atol=1e-12)
    np.testing.assert_allclose(oklab(0.5, 0.2, 1.5), [0.5, -0.2, 0], atol=1e-12)


def test_colours_on_paper_and_screen() -> None:
    assert hex_colour(levels(np.array([-0.2, 0.5, 1.2]))) == "#0080ff" == hex_colour((0, 128, 255))


def test_colours_are_distinct() -> None:
    colours = [ImageColor.getrgb(colour) for colour in hues(12)]
    apart = [sum(abs(a - b) for a, b in zip(x, y, strict=True)) for x in colours for y in colours if x != y]
    assert len(set(colours)) == 12 and min(apart) > 30 and hues(1) == hues(5)[:1]
