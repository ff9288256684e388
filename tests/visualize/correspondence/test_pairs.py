"""Pairs of views."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from ibot_cli.config.schema import ViewsConfig
from ibot_cli.errors import DataError
from ibot_cli.visualize.correspondence import pairs
from ibot_cli.visualize.correspondence.matching import nearest_patches, patch_features
from ibot_cli.visualize.correspondence.pairs import ViewPair, changes_in_words, draw_pair, pair_recipe
from tests.visualize.correspondence.known import loaded, map_image

RECIPE = pair_recipe(loaded(), 64, (0.4, 1.0))
TINY = pair_recipe(loaded(), 64, (0.05, 0.06))


def test_seed_place_and_number_make_the_pair() -> None:
    def pair(**changed: int) -> ViewPair:
        return draw_pair(map_image(), RECIPE, 8, **{"seed": 1, "place": 2, "number": 3, **changed})

    first = pair()
    assert np.array_equal(first.levels, pair().levels) and first.boxes == pair().boxes
    for changed in ({"seed": 2}, {"place": 3}, {"number": 4}):
        assert pair(**changed).boxes != first.boxes


def test_recipe() -> None:
    drawn = [draw_pair(map_image(), RECIPE, 8, seed=0, number=number) for number in range(40)]
    shares = [box.width * box.height / 256**2 for pair in drawn for box in pair.boxes]
    assert min(shares) > 0.39 and max(shares) <= 1
    flips = [box.flip for pair in drawn for box in pair.boxes]
    assert 20 < sum(flips) < 60
    assert (RECIPE.rotation, RECIPE.solarize_prob, RECIPE.blur_prob_first) == (0, 0, 0)
    assert all(pair.levels.shape == (2, 64, 64, 3) and (pair.truth >= 0).any() for pair in drawn)


@pytest.mark.parametrize("size", [(640, 90), (90, 640)])
def test_long_images_give_different_crops(size: tuple[int, int]) -> None:
    """Crops have shapes of 3:4 to 4:3, so the largest one covers 120 x 90 pixels; it is not always the middle one."""
    drawn = [draw_pair(Image.new("RGB", size), RECIPE, 8, seed=0, number=number) for number in range(20)]
    boxes = {(box.left, box.top) for pair in drawn for box in pair.boxes}
    areas = [box.width * box.height for pair in drawn for box in pair.boxes]
    assert len(boxes) > 30 and min(areas) > 0.39 * 120 * 90 and max(areas) <= 1.01 * 120 * 90
    assert all((pair.truth >= 0).any() for pair in drawn)


def test_views_without_overlap_are_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [draw_pair(map_image(), TINY, 8, seed=0, number=number) for number in range(30)]
    assert all((pair.truth >= 0).any() for pair in drawn)
    monkeypatch.setattr(pairs, "ATTEMPTS", 1)
    with pytest.raises(DataError, match=r"1 pairs of views of an image of 256 x 256 pixels did not overlap") as error:
        for number in range(30):
            draw_pair(map_image(), TINY, 8, seed=0, number=number)
    assert error.value.hint == "Cut the image into parts."


def test_the_right_patch_is_the_one_of_the_same_place() -> None:
    """By colour, which says where in the source a patch is, to half a pixel because levels are whole."""
    plain = dataclasses.replace(RECIPE, jitter_prob=0.0, gray_prob=0.0)
    wrong = total = 0
    for number in range(25):
        pair = draw_pair(map_image(), plain, 8, seed=9, number=number)
        features = patch_features(loaded(), pair.pixels(plain), device=torch.device("cpu"))
        found, asked = nearest_patches(*features).forward, np.flatnonzero(pair.truth >= 0)
        view, centers = pair.boxes[1], pair.boxes[0].centers(8)
        for patch in asked[found[asked] != pair.truth[asked]]:
            step = np.array([view.width, view.height]) / 8
            inside = (centers[patch] - [view.left, view.top]) / step
            assert (np.abs(inside - np.rint(inside)) * step).min() < 0.5  # half a level
            wrong += 1
        total += len(asked)
    assert wrong < total / 20 > 25


def test_changes_of_the_run_are_those_that_it_was_trained_with() -> None:
    views = ViewsConfig(flip_prob=0.0, jitter_prob=0.6, brightness=0.2, hue=0.0, gray_prob=0.0, rotation=9.0)
    network = dataclasses.replace(loaded(), views=dataclasses.replace(views, blur_prob_first=1.0, global_size=32))
    recipe = pair_recipe(network, 64, (0.4, 1.0), "run")
    assert changes_in_words(recipe) == "not mirrored, jitter 60% (brightness 0.2, contrast 0.4, saturation 0.2)"
    assert (recipe.global_size, recipe.global_scale, recipe.rotation, recipe.blur_prob_first) == (64, (0.4, 1.0), 0, 0)
    published = "mirrored 50%, jitter 80% (brightness 0.4, contrast 0.4, saturation 0.2, hue 0.1), grey 20%"
    foreign = dataclasses.replace(network, views=None)
    assert changes_in_words(pair_recipe(network, 64, (0.4, 1.0), "published")) == published
    assert changes_in_words(pair_recipe(foreign, 64, (0.4, 1.0), "run")) == published
    drawn = [draw_pair(map_image(), recipe, 8, seed=0, number=number) for number in range(20)]
    assert not any(box.flip for pair in drawn for box in pair.boxes)


def test_without_changes_a_view_is_its_crop() -> None:
    recipe = pair_recipe(loaded(), 64, (0.4, 1.0), "none")
    assert changes_in_words(recipe) == "not mirrored, no jitter"
    grey = dataclasses.replace(pair_recipe(loaded(), 64, (0.4, 1.0), "published"), channels=1)
    assert changes_in_words(grey) == "mirrored 50%, jitter 80% (brightness 0.4, contrast 0.4)"
    for number in range(5):
        pair = draw_pair(map_image(), recipe, 8, seed=0, number=number)
        for view, box in enumerate(pair.boxes):
            corners = box.left, box.top, box.left + box.width, box.top + box.height
            cut = map_image().resize((64, 64), Image.Resampling.BICUBIC, box=corners)
            assert np.abs(pair.levels[view].astype(int) - np.asarray(cut)).max() <= 1


def test_pictures_and_pixels() -> None:
    grey = dataclasses.replace(RECIPE, channels=1, mean=(0.5,), std=(0.5,))
    pair = draw_pair(Image.new("L", (100, 80), 255), dataclasses.replace(grey, jitter_prob=0.0), 8, seed=0)
    assert pair.picture(0).mode == "L" and pair.picture(1).size == (64, 64) and pair.source_size == (100, 80)
    assert pair.pixels(grey).shape == (2, 1, 64, 64) and float(pair.pixels(grey).min()) == 1
