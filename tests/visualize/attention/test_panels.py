"""The right patch lights up: pictures of networks whose attention is known, read pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ibot_cli.visualize.attention.colours import head_colours, heat
from ibot_cli.visualize.attention.figure import attention_figure
from ibot_cli.visualize.attention.maps import CLS, attention_maps
from ibot_cli.visualize.attention.panels import Panels, attention_panels
from ibot_cli.visualize.whole_image import WholeImage, whole_image
from ibot_cli.weights.load import LoadedBackbone
from tests.visualize.attention.known import looking_at, spotted
from tests.visualize.networks import loaded_network

DARKEST, LIGHTEST = (tuple(heat(np.array(value)).tolist()) for value in (0.0, 1.0))


def seen(loaded: LoadedBackbone, image: Image.Image, size: int | None = None) -> tuple[WholeImage, torch.Tensor]:
    whole = whole_image(image, loaded, size)
    return whole, attention_maps(loaded, whole, [CLS])[0]


def patches(picture: Image.Image, whole: WholeImage) -> np.ndarray:
    """The colour of each patch, int `[rows, columns, 3]`; every patch has one colour throughout."""
    rows, columns = whole.grid
    levels = np.asarray(picture).astype(int)
    squares = levels.reshape(rows, levels.shape[0] // rows, columns, -1, 3).swapaxes(1, 2)
    assert (squares == squares[:, :, :1, :1]).all()
    return squares[:, :, 0, 0]


def drawn(loaded: LoadedBackbone, image: Image.Image, **options: float) -> tuple[WholeImage, Panels]:
    whole, maps = seen(loaded, image)
    return whole, attention_panels(whole, maps, side=64, **options)


@pytest.mark.parametrize(("rows", "columns", "spot"), [(4, 4, (2, 1)), (4, 6, (3, 5)), (7, 4, (0, 3))])
def test_the_bright_patch_lights_up(rows: int, columns: int, spot: tuple[int, int]) -> None:
    whole, panels = drawn(looking_at(["bright", "nothing"]), spotted([spot], rows=rows, columns=columns))
    bright, even = (patches(head, whole) for head in panels.heads)
    assert tuple(bright[spot]) == LIGHTEST
    others = np.ones((rows, columns), dtype=bool)
    others[spot] = False
    assert (bright[others] == DARKEST).all()
    assert (even == LIGHTEST).all()


@pytest.mark.parametrize("count", [3, 16])
def test_each_patch_has_the_colour_of_its_strongest_head(count: int) -> None:
    """Head h looks at place 2 h + 1, or h where there are as many heads as places."""
    places = [2 * head + 1 for head in range(3)] if count == 3 else list(range(16))
    whole, panels = drawn(looking_at(places), Image.new("L", (16, 16), 0))
    colours = head_colours(count)
    overlay = patches(panels.overlay, whole).reshape(16, 3)
    assert len(panels.heads) == count
    for head, place in enumerate(places):
        assert np.abs(overlay[place] - colours[head]).max() <= 2
        heats = patches(panels.heads[head], whole).reshape(16, 3)
        assert tuple(heats[place]) == LIGHTEST and (heats.sum(axis=1) == sum(LIGHTEST)).sum() == 1
    unseen = sorted(set(range(16)) - set(places))
    assert (overlay[unseen] < 40).all()


def test_the_overlay_lies_over_the_darkened_grey_image() -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 0))
    whole, panels = drawn(looking_at([5], channels=3), image)
    overlay = patches(panels.overlay, whole).reshape(16, 3)
    grey = image.convert("L").getpixel((0, 0))
    assert isinstance(grey, int)
    assert tuple(overlay[0]) == pytest.approx((0.35 * grey,) * 3, abs=2)
    assert np.abs(overlay[5] - head_colours(1)[0]).max() <= 2
    assert patches(panels.image, whole).reshape(16, 3).tolist() == [[200, 100, 0]] * 16


def test_strength_goes_with_the_attention() -> None:
    whole = whole_image(Image.new("L", (16, 16), 0), loaded_network())
    maps = torch.zeros(1, 4, 4)
    maps[0, 0] = torch.tensor([0.4, 0.1, 0.025, 0.0])
    panels = attention_panels(whole, maps, side=16)
    row = patches(panels.overlay, whole)[0]
    colour = np.array(head_colours(1)[0])
    assert np.abs(row - np.outer([1, 0.25, 0.0625, 0], colour)).max() <= 1
    assert np.array_equal(patches(panels.heads[0], whole)[0], heat(np.array([1, 0.25, 0.0625, 0])))


def test_a_few_far_larger_values_do_not_hide_the_others() -> None:
    whole = whole_image(Image.new("L", (80, 80), 0), loaded_network(), 80)
    maps = torch.full((1, 20, 20), 0.001)
    maps[0, :10] = 0.002
    maps[0, 0, 0] = 0.5
    heats = patches(attention_panels(whole, maps, side=80).heads[0], whole)
    assert tuple(heats[3, 3]) == tuple(heats[0, 0]) == LIGHTEST
    assert np.array_equal(heats[15, 3], heat(np.array(0.5)))


def test_nothing_at_all_is_dark() -> None:
    whole = whole_image(Image.new("L", (16, 16), 0), loaded_network())
    panels = attention_panels(whole, torch.zeros(2, 4, 4))
    assert (patches(panels.heads[0], whole) == DARKEST).all() and (patches(panels.overlay, whole) == 0).all()


def test_a_threshold_shows_the_smallest_set_over_the_image() -> None:
    whole, panels = drawn(looking_at(["bright", "dark"]), spotted([(1, 1), (2, 3)]), threshold=0.95)
    first, second = head_colours(2)
    bright, dark = (patches(head, whole) for head in panels.heads)
    held = np.zeros((4, 4), dtype=bool)
    held[1, 1] = held[2, 3] = True
    assert np.abs(bright[held] - (0.55 * 255 + 0.45 * np.array(first))).max() <= 1
    assert np.abs(bright[~held] - 0.35 * 32).max() <= 1
    assert np.abs(dark[held] - 0.35 * 255).max() <= 1
    # of 14 equal patches 14 hold 95 %
    assert np.abs(dark[~held] - (0.55 * 32 + 0.45 * np.array(second))).max() <= 1


def test_half_of_the_mass() -> None:
    whole, panels = drawn(looking_at(["bright"]), spotted([(1, 1), (2, 3)]), threshold=0.5)
    (head,) = panels.heads
    lit = (patches(head, whole) > 100).any(axis=2)
    assert np.argwhere(lit).tolist() == [[1, 1]]  # of two equal ones the first
    overlay = patches(panels.overlay, whole)
    assert (overlay.max(axis=2) > 150)[1, 1] and np.abs(overlay[2, 3] - 0.35 * 255).max() <= 1


def test_the_query_is_outlined_on_the_image_only() -> None:
    whole, maps = seen(looking_at(["nothing"]), Image.new("L", (24, 16), 90))
    plain = attention_panels(whole, maps, side=60)
    marked = attention_panels(whole, maps, side=60, query=(1, 4))
    step = marked.image.width // 6
    levels = np.asarray(marked.image).astype(int)
    inside = levels[step : 2 * step, 4 * step : 5 * step]
    assert (inside == 90).all()
    assert (levels[step - 1, 4 * step : 5 * step] == 255).all() and (levels[step : 2 * step, 5 * step] == 255).all()
    assert (levels[:, : 3 * step] == 90).all()
    assert marked.heads[0].tobytes() == plain.heads[0].tobytes()
    assert marked.overlay.tobytes() == plain.overlay.tobytes()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_small_images_stay_sharp(mode: str) -> None:
    channels = 1 if mode == "L" else 3
    image = spotted([(0, 0)], mode=mode)
    whole, maps = seen(loaded_network(channels=channels), image)
    panels = attention_panels(whole, maps, side=100)
    assert panels.image.size == (96, 96)  # six times as large, the largest whole factor
    assert panels.image.tobytes() == image.convert("RGB").resize((96, 96), Image.Resampling.NEAREST).tobytes()
    assert all(picture.mode == "RGB" and picture.size == (96, 96) for picture in (panels.overlay, *panels.heads))


def test_large_grids_are_at_least_a_pixel_per_patch() -> None:
    whole = whole_image(Image.new("L", (400, 100)), loaded_network(), 100)
    panels = attention_panels(whole, torch.ones(1, 25, 100), side=10)
    assert panels.image.size == (100, 25) == panels.heads[0].size


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What was asked of `picture_sheet`."""
    found: dict[str, object] = {}

    def sheet(pictures: list[Image.Image], **options: object) -> Image.Image:
        found.update(options, pictures=pictures)
        return pictures[0]

    monkeypatch.setattr("ibot_cli.visualize.attention.figure.picture_sheet", sheet)
    return found


@pytest.mark.parametrize(("heads", "columns"), [(1, 3), (3, 5), (6, 8), (7, 5), (12, 7), (16, 6)])
def test_many_heads_are_wrapped_into_even_rows(asked: dict[str, object], heads: int, columns: int) -> None:
    whole = whole_image(Image.new("L", (16, 16)), loaded_network())
    attention_figure(whole, torch.ones(heads, 4, 4))
    assert asked["columns"] == columns and len(asked["pictures"]) == heads + 2  # type: ignore[arg-type]
    attention_figure(whole, torch.ones(heads, 4, 4), columns=2)
    assert asked["columns"] == 2


def test_places_have_the_shape_of_the_image_and_room_for_captions(asked: dict[str, object]) -> None:
    wide = whole_image(Image.new("L", (32, 16)), loaded_network())
    attention_figure(wide, torch.ones(2, 4, 8))
    assert (asked["side"], asked["height"]) == (320, 160)
    narrow = whole_image(Image.new("L", (16, 160)), loaded_network())
    attention_figure(narrow, torch.ones(2, 40, 4))
    assert (asked["side"], asked["height"]) == (120, 640)  # 16 pixels per patch, a whole factor of 4


@pytest.mark.parametrize(("times", "columns"), [(8, 3), (40, 2), (400, 1)])
def test_long_images_lie_below_each_other(asked: dict[str, object], times: int, columns: int) -> None:
    panorama = whole_image(Image.new("L", (16 * times, 16)), loaded_network())
    attention_figure(panorama, torch.ones(4, 4, 4 * times))
    assert asked["columns"] == columns


def test_outlines_are_the_heads_colours() -> None:
    whole = whole_image(Image.new("L", (16, 16)), loaded_network())
    figure = np.asarray(attention_figure(whole, torch.ones(16, 4, 4), side=96))
    for colour in head_colours(16):
        assert (figure == colour).all(axis=2).sum() > 4 * 90 * 2


def test_captions_are_what_was_measured(asked: dict[str, object]) -> None:
    whole = whole_image(Image.new("L", (24, 16)), loaded_network())
    maps = torch.zeros(2, 4, 6)
    maps[0, 0, 0], maps[1] = 0.9, 0.01
    attention_figure(whole, maps, title="a title")
    assert asked["captions"] == [
        "24 x 16 pixels\n6 x 4 patches",
        "all heads\nstrongest wins",
        "head 1\n60% in 4% of area",
        "head 2\n60% in 62% of area",
    ]
    assert asked["title"] == "a title"
    attention_figure(whole, maps, threshold=0.25)
    assert str(asked["captions"]).count("25% in 25% of area") == 1
    large = whole_image(Image.new("L", (80, 80)), loaded_network(), 80)
    one = torch.zeros(1, 20, 20)
    one[0, 3, 3] = 1
    attention_figure(large, one)
    assert str(asked["captions"]).endswith("60% in <1% of area']")
