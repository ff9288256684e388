"""Where patches lie: against the pixels that the project's own cropping gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ibot_cli.data.changes import Changes, pack_changes
from ibot_cli.data.crops import crop_resized
from ibot_cli.data.photometric import change_levels
from ibot_cli.data.transform import stack_images
from ibot_cli.visualize.correspondence.geometry import ViewBox, near_chance, steps_apart
from tests.visualize.correspondence.known import map_image


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 256, 256), (31, 17, 96, 128), (100, 3, 150, 200), (200, 220, 40, 30)])
def test_centres_are_where_the_pixels_come_from(box: tuple[int, int, int, int], flip: bool) -> None:
    """The map tells the source's pixel for every pixel of a view; pixel n has its centre at n + 0.5."""
    grid, size = 8, 64
    crop = torch.from_numpy(stack_images([crop_resized(map_image(), box, size)]))
    changes = pack_changes([Changes(flip, (), False, 0.0, False)])
    levels = change_levels(crop, changes, threshold=128)[0].numpy()
    means = levels[..., :2].reshape(grid, 8, grid, 8, 2).mean(axis=(1, 3)).reshape(-1, 2)
    left, top, width, height = box
    centers = ViewBox(left=left, top=top, width=width, height=height, flip=flip).centers(grid)
    np.testing.assert_allclose(centers, means + 0.5, atol=0.75)  # levels are whole, and the edges are resampled


@pytest.mark.parametrize("flip", [False, True])
def test_a_view_finds_its_own_centres(flip: bool) -> None:
    box = ViewBox(left=3, top=7, width=50, height=31, flip=flip)
    np.testing.assert_array_equal(box.patches_at(box.centers(5), 5), np.arange(25))


def test_points_by_hand() -> None:
    box = ViewBox(left=10, top=20, width=40, height=20, flip=False)  # patches of 10 x 5
    points = np.array([[10, 20], [19.9, 24.9], [20, 20], [49.9, 39.9], [9.9, 30], [50, 30], [30, 19.9], [30, 40]])
    np.testing.assert_array_equal(box.patches_at(points, 4), [0, 0, 1, 15, -1, -1, -1, -1])
    mirrored = ViewBox(left=10, top=20, width=40, height=20, flip=True)
    np.testing.assert_array_equal(mirrored.patches_at(points, 4), [3, 3, 2, 12, -1, -1, -1, -1])


def test_steps_apart() -> None:
    a, b = np.array([0, 0, 0, 5, 15]), np.array([0, 5, 15, 2, 12])
    np.testing.assert_array_equal(steps_apart(a, b, 4), [0, 1, 3, 1, 3])


@pytest.mark.parametrize("grid", [1, 2, 3, 5])
def test_near_chance_counts_neighbours(grid: int) -> None:
    every = np.arange(grid * grid)
    expected = [(steps_apart(np.full_like(every, patch), every, grid) <= 1).mean() for patch in every]
    np.testing.assert_allclose(near_chance(every, grid), expected)
