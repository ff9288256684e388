import dataclasses
import random

import numpy as np
import pytest
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP, rand_augment_choices
from timm.data.random_erasing import RandomErasing

from ibot_cli.config.finetune import AugmentConfig
from ibot_cli.data.augment import AugmentRecipe, global_draws, posterize
from ibot_cli.data.rng import stream

PLAIN = {"crop_scale": (1.0, 1.0), "crop_aspect": (1.0, 1.0), "flip_prob": 0.0, "auto_augment": "none",
         "color_jitter": 0.0, "erase_prob": 0.0}  # fmt: skip
STATISTICS = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}


def recipe(channels=3, size=32, **changes):
    mean, std = STATISTICS[channels]
    augment = dataclasses.replace(AugmentConfig(), **changes)
    return AugmentRecipe.from_config(augment, image_size=size, channels=channels, mean=mean, std=std)


def image(mode="RGB", size=(40, 40)):
    """Noise on a gradient, so that every operation has something to change."""
    width, height = size
    levels = np.random.default_rng(0).integers(0, 100, (height, width, 3)) + np.linspace(0, 90, width)[:, None]
    return Image.fromarray(levels.astype(np.uint8)).convert(mode)


def levels(view):
    return np.asarray(view)


def operation_of(mine, name):
    return next(operation for operation in mine._rand_augment.ops if operation.name == name)


def test_without_any_operation_the_image_is_only_resized():
    whole = image()
    same = recipe(**PLAIN, size=40).view(whole, 0, 0, 0)
    np.testing.assert_array_equal(levels(same), levels(whole))
    for name, resampling in (("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)):
        small = recipe(**{**PLAIN, "interpolation": name}, size=24).view(whole, 0, 0, 0)
        np.testing.assert_array_equal(levels(small), levels(whole.resize((24, 24), resampling)))


def test_flips():
    whole = image()
    mirrored = levels(whole)[:, ::-1]
    always = recipe(**{**PLAIN, "flip_prob": 1.0}, size=40)
    never = recipe(**PLAIN, size=40)
    for sample in range(40):
        np.testing.assert_array_equal(levels(always.view(whole, 0, sample, 0)), mirrored)
        np.testing.assert_array_equal(levels(never.view(whole, 0, sample, 0)), levels(whole))
    half = recipe(**{**PLAIN, "flip_prob": 0.5}, size=40)
    flips = sum(np.array_equal(levels(half.view(whole, 0, sample, 0)), mirrored) for sample in range(400))
    assert 150 < flips < 250


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m5-n3-p1-tweights", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_a_function_of_seed_sample_and_visit(policy, channels):
    whole = image("L" if channels == 1 else "RGB")
    one, other = (recipe(channels, auto_augment=policy) for _ in range(2))
    keys = [(seed, sample, visit) for seed in range(2) for sample in range(3) for visit in range(3)]
    views = {key: levels(one.view(whole, *key)).tobytes() for key in keys}
    assert {key: levels(other.view(whole, *key)).tobytes() for key in reversed(keys)} == views
    assert len(set(views.values())) == len(keys)


def test_jitter_is_left_out_where_randaugment_is_on():
    whole = image()
    assert recipe(color_jitter=0.0).view(whole, 0, 0, 0) == recipe(color_jitter=0.4).view(whole, 0, 0, 0)
    jitter = {**PLAIN, "color_jitter": 0.4}
    assert levels(recipe(**jitter).view(whole, 0, 0, 0)).std() > 0
    assert recipe(**jitter).view(whole, 0, 0, 0) != recipe(**PLAIN).view(whole, 0, 0, 0)


@pytest.mark.parametrize("name", [*dict.fromkeys([*rand_augment_choices("", True), *rand_augment_choices("weights")])])
def test_every_operation_of_randaugment_takes_grey_images(name):
    whole = image("L", (16, 16))
    operation = operation_of(recipe(1), name)
    changed = 0
    for seed in range(5):
        with global_draws(stream(seed, 0, 0, "test")):
            result = operation(whole)
        assert (result.mode, result.size) == ("L", (16, 16))
        changed += result != whole
    assert (changed == 0) == (name == "ColorIncreasing")  # grey has no colour


@pytest.mark.parametrize("strength", [0, 10])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_works_at_every_strength(channels, strength):
    mine, whole = recipe(channels, auto_augment=f"rand-m{strength}-p1-inc1"), image("L" if channels == 1 else "RGB")
    for operation in mine._rand_augment.ops:
        with global_draws(stream(0, 0, 0, "test")):
            assert operation(whole).size == whole.size


def test_posterizing_keeps_one_bit_at_least():
    whole = image("L")
    assert {*levels(posterize(whole, 0)).ravel()} == {0, 128}
    assert posterize(whole, 0) == posterize(whole, 1)
    assert posterize(whole, 8) is whole
    assert posterize(whole, 3) == NAME_TO_OP["PosterizeIncreasing"](whole, 3)


def test_randaugment_is_timms_with_its_seeds():
    whole, mine = image(), recipe(**{**PLAIN, "auto_augment": "rand-m9-mstd0.5-inc1"})
    with global_draws(stream(3, 4, 5, "rand_augment")):
        expected = mine._rand_augment(whole.resize((32, 32), Image.Resampling.BICUBIC))
    assert mine.view(whole, 3, 4, 5) == expected


def test_the_global_generators_stay_as_they_are():
    before = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    mine = recipe(erase_prob=1.0)
    for sample in range(5):
        mine.view(image(), 0, sample, 0)
        mine.erased(0, sample, 0)
    with pytest.raises(ZeroDivisionError), global_draws(stream(0, 0, 0, "test")):
        random.random()
        np.random.rand()  # noqa: NPY002
        raise ZeroDivisionError
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before  # noqa: NPY002


def test_views_do_not_depend_on_the_global_generators():
    random.seed(1)
    first = recipe().view(image(), 0, 0, 0)
    random.seed(2)
    assert recipe().view(image(), 0, 0, 0) == first


def test_erasing_is_as_frequent_and_as_large_as_timms():
    mine = recipe(erase_prob=0.25, size=32)
    erased = [mine.erased(0, sample, 0) for sample in range(2000)]
    boxes = [found[0] for found in erased if found]
    assert 430 < len(boxes) < 570
    assert all(b.top >= 0 and b.left >= 0 and b.top + b.height <= 32 and b.left + b.width <= 32 for b in boxes)
    with global_draws(stream(0, 0, 0, "timm")):
        theirs = _timm_areas(600)
    ours = np.array([box.height * box.width for box in boxes]) / 32**2
    assert abs(ours.mean() - theirs.mean()) < 0.02
    assert abs(np.quantile(ours, 0.9) - np.quantile(theirs, 0.9)) < 0.03
    noise = np.concatenate([found[1].ravel() for found in erased if found])
    assert noise.dtype == np.float32 and abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert erased[5:9] != erased[6:10]
    assert recipe(erase_prob=0.0).erased(0, 0, 0) is None


def _timm_areas(count):
    import torch

    eraser = RandomErasing(probability=1.0, mode="const", device="cpu")
    return np.array([(eraser(torch.ones(1, 32, 32)) == 0).float().mean().item() for _ in range(count)])


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 3)])
def test_images_of_any_size(size):
    view = recipe(size=16).view(image(size=size), 0, 0, 0)
    assert view.size == (16, 16)


@pytest.mark.parametrize(("channels", "dtype"), [(5, np.uint8), (2, np.uint16), (3, np.uint16)])
def test_views_of_many_bands_are_cropped_flipped_and_jittered(channels, dtype):
    levels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max // 8, (40, 50, channels), dtype=dtype)
    augment = AugmentConfig(auto_augment="none", color_jitter=0.0, flip_prob=1.0, crop_scale=(1.0, 1.0))
    settings = {"image_size": 40, "channels": channels, "mean": (0.4,) * channels, "std": (0.2,) * channels}
    recipe = AugmentRecipe.from_config(augment, bits=8 * levels.itemsize, **settings)
    assert not recipe.plain
    view = recipe.view_levels(levels[:, :40], 0, 1, 2)
    np.testing.assert_array_equal(view, levels[:, :40][:, ::-1])
    strong = AugmentConfig(auto_augment="none", color_jitter=0.9)
    recipe = AugmentRecipe.from_config(strong, bits=8 * levels.itemsize, **settings)
    views = [recipe.view_levels(levels, 0, sample, 0) for sample in (1, 1, 2)]
    assert views[0].shape == (40, 40, channels) and views[0].dtype == dtype
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).any()


def test_jitter_of_many_bands_is_that_of_pillow_in_grey():
    grey = np.random.default_rng(1).integers(0, 256, (30, 30, 1), dtype=np.uint8)
    augment = AugmentConfig(auto_augment="none", color_jitter=0.4, crop_scale=(1.0, 1.0))
    one = AugmentRecipe.from_config(augment, image_size=30, channels=1, mean=(0.4,), std=(0.2,))
    many = AugmentRecipe.from_config(augment, image_size=30, channels=2, mean=(0.4,) * 2, std=(0.2,) * 2)
    for sample in range(8):
        expected = np.asarray(one.view(Image.fromarray(grey[..., 0]), 0, sample, 0)).astype(int)
        found = many.view_levels(np.repeat(grey, 2, axis=2), 0, sample, 0)
        np.testing.assert_allclose(found[..., 0], expected, atol=2)  # Pillow cuts after each step
        np.testing.assert_array_equal(found[..., 0], found[..., 1])
