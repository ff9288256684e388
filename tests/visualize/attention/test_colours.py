"""Colours of heads and the scale of heat maps."""

from __future__ import annotations

import numpy as np
import pytest

from ibot_cli.visualize.attention.colours import head_colours, heat


def luminance(colour: tuple[int, int, int]) -> float:
    linear = (np.array(colour) / 255) ** 2.2
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize(("count", "apart"), [(3, 120), (6, 90), (12, 45), (16, 40), (24, 30), (48, 18)])
def test_colours_are_far_apart(count: int, apart: float) -> None:
    colours = np.array(head_colours(count), dtype=float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1e9 * np.eye(count)
    assert colours.shape == (count, 3) and distances.min() >= apart


def test_colours_are_seen_on_a_dark_ground_and_on_paper() -> None:
    values = [luminance(colour) for colour in head_colours(24)]
    assert min(values) > 0.08 and max(values) < 0.9


def test_more_heads_leave_the_first_colours_as_they_are() -> None:
    assert head_colours(16)[:3] == head_colours(3)
    assert len(set(head_colours(100))) == 100 and len(head_colours(5000)) == 5000
    assert head_colours(0) == []


def test_heat_grows_lighter_throughout() -> None:
    colours = heat(np.linspace(0, 1, 64))
    values = [luminance(tuple(colour)) for colour in colours]
    assert (np.diff(values) > 0).all() and values[0] < 0.01 and values[-1] > 0.75
    assert np.array_equal(heat(np.array([[-1.0, 2.0]])), heat(np.array([[0.0, 1.0]])))
