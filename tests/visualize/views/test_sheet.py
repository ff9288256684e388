"""The sheet of training views."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageColor

from ibot_cli.train.request import Request
from ibot_cli.visualize.palette import hues
from ibot_cli.visualize.scaling import scaled
from ibot_cli.visualize.views.result import SeenSample, SeenView
from ibot_cli.visualize.views.samples import training_views
from ibot_cli.visualize.views.sheet import views_sheet
from ibot_cli.visualize.views.tiles import masked_view, source_with_boxes


def share(image: Image.Image, colour: str) -> float:
    return float((np.asarray(image) == ImageColor.getrgb(colour)).all(axis=2).mean())


def test_masked_patches_are_covered_and_no_others() -> None:
    levels = np.full((12, 12, 3), (200, 30, 30), dtype=np.uint8)
    mask = np.zeros((3, 3), dtype=bool)
    mask[0, 2] = mask[2, 1] = True
    pixels = np.asarray(masked_view(levels, mask, 90))
    covered = (pixels != (200, 30, 30)).any(axis=2).reshape(3, 30, 3, 30)
    np.testing.assert_array_equal(covered.all(axis=(1, 3)), mask)
    np.testing.assert_array_equal(covered.any(axis=(1, 3)), mask)
    assert len(np.unique(pixels[:30, 60:].reshape(-1, 3), axis=0)) == 2  # a veil and its hatching


def test_boxes_lie_where_the_crops_were() -> None:
    def view(number: int, left: int, top: int, width: int, height: int) -> SeenView:
        right, bottom = left + width, top + height
        corners = (left, top), (right, top), (right, bottom), (left, bottom)
        return SeenView(
            kind="global", number=number, size=8, box=(left, top, width, height), corners=corners, share=0.1,
            degrees=0, flip=False, jitter=False, gray=False, blur_radius=0, solarize=False, mask_ratio=0.0,
        )  # fmt: skip

    sample = SeenSample(
        sample=0, used=0, path="a", source_size=(100, 50), views=(view(1, 10, 10, 30, 30), view(2, 50, 5, 40, 40))
    )
    picture = source_with_boxes(Image.new("RGB", (100, 50)), sample, ["#ff0000", "#00ff00"], (300, 150))
    for colour, box in (((255, 0, 0), (30, 30, 120, 120)), ((0, 255, 0), (150, 15, 270, 135))):
        rows, columns = np.nonzero((np.asarray(picture) == colour).all(axis=2))
        found = columns.min(), rows.min(), columns.max(), rows.max()
        np.testing.assert_allclose(found, box, atol=2.1)
        assert picture.getpixel(((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)) == (0, 0, 0)


def test_box_and_view_have_one_colour() -> None:
    found, pixels, source = training_views(Request(), num=2)
    sheet = views_sheet(found, pixels, source)
    assert len(found.samples[0].views) == 6
    assert all(share(sheet, colour) > 0 for colour in hues(6))
    one = views_sheet(*training_views(Request(sets=["views.num_local=0", "objective.patch=none"]), num=1))
    assert one.width < sheet.width and one.height < sheet.height
    assert share(one, hues(6)[2]) == 0


def test_small_pictures_stay_sharp() -> None:
    checks = Image.fromarray(np.indices((4, 4)).sum(axis=0).astype(np.uint8) % 2 * 255)
    large = np.asarray(scaled(checks, (40, 40)))
    assert set(np.unique(large)) == {0, 255} and scaled(checks, (40, 40)).mode == "RGB"
    np.testing.assert_array_equal(large[5::10, 5::10, 0], np.asarray(checks))
    assert set(np.unique(np.asarray(scaled(checks, (8, 8))))) == {0, 255}
    assert scaled(checks, (7, 6)).size == (7, 6) and scaled(checks, (2, 2)).size == (2, 2)
