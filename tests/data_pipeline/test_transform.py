import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from ibot_cli.config.schema import DataConfig, ViewsConfig
from ibot_cli.data.changes import NUM_DRAWS, draw_changes, pack_changes
from ibot_cli.data.photometric import finish_views
from ibot_cli.data.picture import ArrayPicture
from ibot_cli.data.rng import stream
from ibot_cli.data.transform import UNCHANGED, ViewRecipe, cut_views, eval_transform, normalise

STILL = dict.fromkeys(
    ["jitter_prob", "gray_prob", "blur_prob_first", "blur_prob_other", "blur_prob_local", "solarize_prob", "flip_prob"],
    0.0,
)
VIEWS = ViewsConfig(num_local=3, global_size=24, local_size=12)


def picture(mode="RGB", size=(50, 40)):
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def recipe(channels=3, **changes):
    return ViewRecipe.from_config(dataclasses.replace(VIEWS, **changes), DataConfig(channels=channels))


def make_views(image, made, rng):
    """The global and the local views, finished."""
    levels = np.asarray(image).reshape(image.height, image.width, -1)
    crops, changes = cut_views(ArrayPicture(levels, image.mode), made, rng)
    views = [
        finish_views(crop[None], pack_changes([change]), threshold=128, mean=made.mean, std=made.std)[0]
        for crop, change in zip(crops, changes, strict=True)
    ]
    return views[: made.num_global], views[made.num_global :]


@pytest.mark.parametrize("channels", [1, 3])
def test_views_have_the_asked_shapes_and_follow_the_stream(channels):
    image = picture("L" if channels == 1 else "RGB")
    views = make_views(image, recipe(channels), stream(0, 1, 2, "crops"))
    assert [tuple(v.shape) for v in views[0]] == [(channels, 24, 24)] * 2
    assert [tuple(v.shape) for v in views[1]] == [(channels, 12, 12)] * 3
    again = make_views(image, recipe(channels), stream(0, 1, 2, "crops"))
    assert all(torch.equal(a, b) for a, b in zip([*views[0], *views[1]], [*again[0], *again[1]], strict=True))
    other = make_views(image, recipe(channels), stream(0, 1, 3, "crops"))
    assert not torch.equal(views[0][0], other[0][0])


def test_no_local_views():
    assert make_views(picture(), recipe(num_local=0), stream(0, 0, 0, "crops"))[1] == []


def test_a_view_does_not_depend_on_the_number_of_the_others():
    few = make_views(picture(), recipe(num_local=1), stream(0, 1, 2, "crops"))
    many = make_views(picture(), recipe(num_local=6), stream(0, 1, 2, "crops"))
    assert torch.equal(few[0][0], many[0][0]) and torch.equal(few[1][0], many[1][0])


def test_a_probability_leaves_the_crops_as_they_are():
    plain = make_views(picture(), recipe(**STILL), stream(0, 1, 2, "crops"))
    flipped = make_views(picture(), recipe(**{**STILL, "flip_prob": 1.0}), stream(0, 1, 2, "crops"))
    for group in range(2):
        assert all(torch.equal(a.flip(-1), b) for a, b in zip(plain[group], flipped[group], strict=True))


def test_blur_and_solarisation_belong_to_the_published_views():
    rates = [(s.blur_prob, s.solarize_prob) for s in recipe(num_global=3, num_local=2).strengths]
    assert rates == [(1.0, 0.0), (0.1, 0.2), (0.1, 0.2), (0.5, 0.0), (0.5, 0.0)]


def test_grey_images_draw_no_colour_operations():
    assert all((s.saturation, s.hue, s.gray_prob) == (0, 0, 0) for s in recipe(1).strengths)


def test_numbers_are_those_of_torchvision():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = F.normalize(F.to_tensor(picture()), mean, std)
    ours = normalise(torch.from_numpy(np.asarray(picture()).copy()), mean, std)
    assert ours.is_contiguous() and torch.equal(ours, theirs)


def test_automatic_statistics():
    assert recipe(1).mean == (0.449,) and recipe(1).std == (0.226,)
    assert recipe(3).mean == (0.485, 0.456, 0.406)
    given = ViewRecipe.from_config(VIEWS, DataConfig(channels=1, mean=(0.5,), std=(0.3,)))
    assert (given.mean, given.std) == ((0.5,), (0.3,))


def test_rotation_turns_each_view_and_fills_with_zero():
    white = Image.new("L", (32, 32), 255)
    still = {**STILL, "global_scale": (1.0, 1.0), "aspect": (1.0, 1.0), "num_local": 0}
    straight = make_views(white, recipe(1, **still), stream(0, 0, 0, "crops"))[0]
    turned = make_views(white, recipe(1, rotation=30.0, **still), stream(0, 0, 0, "crops"))[0]
    assert all(view.min() == view.max() for view in straight)
    assert all(view[0, 0, 0] < view[0, 12, 12] for view in turned)


def test_evaluation_transform():
    transform = eval_transform(32, 0.875, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert transform(picture()).shape == (3, 32, 32)
    with pytest.raises(ValueError, match="1 channels"):
        eval_transform(32, 0.875, 1, (0.5, 0.5), (0.2, 0.2))


def test_what_cannot_happen_is_not_drawn_and_does_not_happen():
    draws = stream(0, 0, 0, "x").random(NUM_DRAWS).tolist()
    still = recipe(**STILL)
    assert all(still.kept) and {draw_changes(strengths, draws) for strengths in still.strengths} == {UNCHANGED}
    assert recipe(**{**STILL, "solarize_prob": 0.2}).kept == [True, False, True, True, True]
