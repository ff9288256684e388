"""Patterns of paintings, and the colours that a sheet must show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from ibot_cli.visualize.patterns.find import find_patterns
from ibot_cli.visualize.patterns.result import PatternOptions, Patterns, Purity, PurityComparison
from tests.visualize.patterns.coloured import COLOURS, Painting, Paintings, coloured_weights

RGB = list(COLOURS.values())
RAGGED = Paintings(
    [
        Painting("rrrg rrrg rrrg bbbb", cell=8),
        Painting("yyyy yyyy ggyy yyyy", cell=24, across=17),
        Painting("rryy rryy bbbb bbbb", cell=11, down=9),
    ],
    labels=[0, 1, 0],
    classes=["warm", "sunny"],
)
UNLABELLED = Paintings(["rrrg rrrg rrrg bbbb", "yyyy yyyy ggyy yyyy", "rryy rryy bbbb bbbb"])
COMPARISON = PurityComparison(
    trained=Purity(members=0.9, patches=0.8, overall=0.7, used=4, num_patterns=4),
    random=tuple(
        Purity(members=members, patches=0.4, overall=0.4, used=used, num_patterns=4)
        for members, used in ((0.5, 3), (0.6, 4), (0.7, 5))
    ),
    seeds=(0, 1, 2),
    pixels=Purity(members=1.0, patches=0.5, overall=0.7, used=4, num_patterns=4),
    pixels_k=4,
    chance=0.25,
    chance_members=0.3,
    num_images=1234,
    top_k=36,
)


def find(source: Paintings = RAGGED, **options: Any) -> Patterns:
    """With window 3 unless told otherwise; nothing is dark."""
    return find_patterns(coloured_weights(), source, PatternOptions(**{"window": 3, "min_brightness": -1, **options}))


def other(found: Patterns) -> Patterns:
    """What stands for random weights: the same patterns the other way round, one fewer."""
    return replace(found, patterns=found.patterns[:0:-1], weights="random weights (seed 0)")


def colour(image: Image.Image, x: float, y: float) -> tuple[int, int, int]:
    found = image.convert("RGB").getpixel((round(x), round(y)))
    assert isinstance(found, tuple)
    return found[0], found[1], found[2]


def near(found: tuple[int, int, int], expected: tuple[int, int, int], by: int = 4) -> bool:
    return bool(np.abs(np.subtract(found, expected)).max() <= by)
