"""The views shown are those of training, to the bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ibot_cli.config.schema import DataConfig, ViewsConfig
from ibot_cli.data.crops import crop_resized
from ibot_cli.data.transform import ViewRecipe, normalise
from ibot_cli.errors import ConfigError, DataError, UsageError
from ibot_cli.train.launch import prepare
from ibot_cli.train.plan import loader_of
from ibot_cli.train.request import Request
from ibot_cli.visualize.views.result import SeenView
from ibot_cli.visualize.views.samples import levels_of, training_views
from tests.data_pipeline.images import write_image
from tests.train.runs import SMALL

COLOUR = [
    *(entry for entry in SMALL if not entry.startswith("data.channels")),
    "data.channels=3",
    "views.rotation=10",
    "mask.ratio=[0.4]",
    "mask.ratio_var=[0]",
    "train.seed=7",
    "train.batch_size=6",
    "train.micro_batch_size=3",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        write_image(tmp_path / "images" / f"{number}.png", number, (30 + number, 40))
    return tmp_path / "images"


def request(folder: Path, *sets: str) -> Request:
    return Request(data=str(folder), preset="ibot_vits16", sets=[*COLOUR, *sets], out=folder.parent / "run")


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_run_sees_these_pixels_and_masks(folder: Path, epoch: int) -> None:
    asked = request(folder)
    prepared = prepare(asked)
    loader = loader_of(prepared.plan, prepared.source)
    first = epoch * loader.steps_per_epoch
    steps = list(loader.steps(first, first + 2))
    batches = [batch for step in steps for batch in step.micro]
    found, pixels, _ = training_views(asked, num=10, epoch=epoch)
    recipe = ViewRecipe.from_config(prepared.plan.config.views, prepared.plan.config.data)
    assert [sample.sample for sample in found.samples] == np.concatenate([s.samples for s in steps])[:10].tolist()
    for part, views in (
        ("global_levels", torch.cat([batch.global_views for batch in batches], 1)),
        ("local_levels", torch.cat([batch.local_views for batch in batches], 1)),
    ):
        levels = torch.from_numpy(np.stack([getattr(sample, part) for sample in pixels], 1))
        half_a_level = 0.501 / 255 / min(recipe.std)
        torch.testing.assert_close(normalise(levels, recipe.mean, recipe.std), views[:, :10], rtol=0, atol=half_a_level)
    masks = torch.cat([batch.mask for batch in batches], 1)[:, :10]
    assert torch.equal(torch.from_numpy(np.stack([s.masks for s in pixels], 1)).flatten(2), masks) and masks.any()
    ratios = [[view.mask_ratio or 0.0 for view in sample.views[:2]] for sample in found.samples]
    np.testing.assert_allclose(ratios, masks.float().mean(2).T)


def test_the_box_and_the_flip_give_the_view(folder: Path) -> None:
    plain = ["jitter_prob", "gray_prob", "solarize_prob", "blur_prob_first", "blur_prob_other", "blur_prob_local"]
    asked = request(folder, "views.rotation=0", *(f"views.{name}=0" for name in plain))
    found, pixels, source = training_views(asked, num=6)
    flips = 0
    for sample, part in zip(found.samples, pixels, strict=True):
        image = source.read(sample.used)
        assert image.size == sample.source_size
        for view, levels in zip(sample.views, [*part.global_levels, *part.local_levels], strict=True):
            left, top, width, height = view.box
            crop = image.crop((left, top, left + width, top + height)).resize(
                (view.size,) * 2, Image.Resampling.BICUBIC
            )
            flips += view.flip
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else crop
            assert np.abs(np.asarray(crop).astype(int) - levels).max() <= 1  # crops are resized with torch
            corners = (left, top), (left + width, top), (left + width, top + height), (left, top + height)
            assert view.corners == corners and view.share == width * height / (image.width * image.height)
            assert (view.jitter, view.gray, view.blur_radius, view.solarize) == (False, False, 0, False)
    assert 0 < flips < 6 * 4
    assert [view.kind for view in found.samples[0].views] == ["global"] * 2 + ["local"] * 2
    assert [view.number for view in found.samples[0].views] == [1, 2, 3, 4]


def test_corners_of_a_turned_crop() -> None:
    """A source of its own coordinates: the crop's outermost pixels are those at the corners."""
    from ibot_cli.data.changes import Changes
    from ibot_cli.data.transform import DrawnView
    from ibot_cli.visualize.views.samples import _seen

    side, box = 200, (60, 50, 64, 64)
    across = np.tile(np.arange(side, dtype=np.uint8), (side, 1))
    view = DrawnView(box, 64, 17.0, Changes(False, (), False, 0.0, False))
    seen = _seen(view, (side, side), 1, None)
    crops = [np.asarray(crop_resized(Image.fromarray(part), box, 64, 17.0)) for part in (across, across.T.copy())]
    for (x, y), place in zip(seen.corners, [(0, 0), (0, -1), (-1, -1), (-1, 0)], strict=True):
        assert abs(float(crops[0][place]) + 0.5 - x) < 1.5 and abs(float(crops[1][place]) + 0.5 - y) < 1.5


def test_normalisation_is_undone_exactly() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    for mean, std in ((None, None), ((0.1, 0.5, 0.9), (0.05, 0.5, 1.0))):
        recipe = ViewRecipe.from_config(ViewsConfig(), DataConfig(mean=mean, std=std))
        assert np.array_equal(levels_of(normalise(levels, recipe.mean, recipe.std), recipe), levels.numpy())


def test_mean_of_the_masks_and_fewer_images_than_asked(folder: Path) -> None:
    found, pixels, _ = training_views(request(folder, "mask.kind=random", "mask.ratio=[0.5]"), num=99)
    assert len(found.samples) == len(pixels) == found.num_images == 20 and found.num_masks == 40
    assert (found.masked_share, found.unmasked_share, found.grid) == (0.5, 0.0, 4)
    assert np.mean([view.mask_ratio or 0.0 for sample in found.samples for view in sample.views[:2]]) == 0.5


def test_epochs_before_the_masks_and_recipes_without(folder: Path) -> None:
    late = request(folder, "mask.start_epoch=2")
    before, pixels, _ = training_views(late, num=3, epoch=1)
    assert before.masked_share == 0 and not any(part.masks.any() for part in pixels)
    after, pixels, _ = training_views(late, num=3, epoch=2)
    assert after.masked_share > 0.2 and any(part.masks.any() for part in pixels)
    never, pixels, _ = training_views(request(folder, "objective.patch=none", "views.num_local=0"), num=2)
    assert never.mask is None and never.masked_share == 0 and pixels[0].local_levels.shape[0] == 0


def test_masks_that_would_begin_after_the_end_begin_earlier_as_in_the_run(folder: Path) -> None:
    """Durations are cut to the run before anything is drawn."""
    asked = request(folder, "mask.start_epoch=400", "train.epochs=4")
    config = prepare(asked).plan.config
    assert 0 < config.mask.start_epoch < 4
    found = [training_views(asked, num=4, epoch=epoch)[0].masked_share > 0 for epoch in range(4)]
    assert found == [epoch >= config.mask.start_epoch for epoch in range(4)]


def test_another_image_in_place_of_an_unreadable_one(folder: Path) -> None:
    first = training_views(request(folder), num=1)[0].samples[0]
    path = Path(first.path)
    path.write_bytes(b"")
    found = training_views(request(folder), num=1)[0]
    assert found.samples[0].sample == first.sample != found.samples[0].used
    assert found.unreadable == {str(path): "the file is empty"} and found.samples[0].path != str(path)


def test_swin_masks_its_output_tokens(folder: Path) -> None:
    sets = ["model.arch=swin_tiny", "views.global_size=64", "views.local_size=32", "model.patch_size=4"]
    found = training_views(Request(data=str(folder), preset="ibot_vits16", sets=sets), num=1)[0]
    assert found.grid == 2


def test_without_a_preset_the_recipe_is_chosen_as_for_a_run(folder: Path) -> None:
    asked = dataclasses.replace(request(folder), preset=None)
    found = training_views(asked, num=1)[0]
    assert found.preset is None and found.views == prepare(asked).plan.config.views
    assert training_views(Request(), num=1)[0].preset == "digits"


def test_errors(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--num 0: there is nothing to show\.") as error:
        training_views(request(folder), num=0)
    assert error.value.hint == "Ask for one sample at least."
    with pytest.raises(UsageError, match=r"--epoch 4: the run has the epochs 0 to 3\.") as error:
        training_views(request(folder), num=1, epoch=4)
    assert error.value.hint == "They are counted from 0."
    with pytest.raises(DataError, match="There is no folder or file"):
        training_views(request(folder / "nowhere"), num=1)
    with pytest.raises(ConfigError, match=r"views\.flip_prob"):
        training_views(request(folder, "views.flip_prob=2"), num=1)


def test_views_are_described() -> None:
    assert {"box", "corners", "flip", "mask_ratio"} <= {field.name for field in dataclasses.fields(SeenView)}
