"""What a network is given of images of any size and shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ibot_cli.core import swin
from ibot_cli.data.transform import normalise
from ibot_cli.errors import DataError, UsageError, WeightsError
from ibot_cli.visualize.whole_image import WholeImage, whole_image
from ibot_cli.weights.load import LoadedBackbone, load_weights
from tests.visualize.networks import loaded_network


def ramp(width: int, height: int, mode: str = "L") -> Image.Image:
    """Every pixel differs from its neighbours."""
    rng = np.random.default_rng(0)
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)


@pytest.mark.parametrize(
    ("width", "height", "size", "grid", "seen"),
    [
        (16, 16, None, (4, 4), (0, 0, 16, 16)),
        (32, 16, None, (4, 8), (0, 0, 32, 16)),
        (32, 16, 32, (8, 16), (0, 0, 32, 16)),
        (19, 16, None, (4, 4), (2, 0, 18, 16)),  # three columns over: 1.5 is rounded to 2
        (23, 46, 23, (11, 5), (2, 1, 22, 45)),
        (64, 40, 20, (5, 8), (0, 0, 64, 40)),
        (5, 200, 4, (40, 1), (0, 0, 5, 200)),
    ],
)
def test_size_and_shape(
    width: int, height: int, size: int | None, grid: tuple[int, int], seen: tuple[float, ...]
) -> None:
    whole = whole_image(ramp(width, height), loaded_network(), size)
    rows, columns = whole.grid
    assert (whole.grid, whole.seen) == (grid, seen)
    assert whole.pixels.shape == (1, rows * 4, columns * 4)
    assert whole.shown.size == (columns * 4, rows * 4)
    assert whole.source_size == (width, height)


def test_the_pixels_shown_are_those_that_the_network_sees() -> None:
    loaded = loaded_network(channels=3)
    image = ramp(37, 16, "RGB")
    whole = whole_image(image, loaded)
    assert whole.seen == (0, 0, 36, 16)
    assert whole.shown.tobytes() == image.crop((0, 0, 36, 16)).tobytes()
    levels = torch.from_numpy(np.array(whole.shown))
    assert torch.equal(whole.pixels, normalise(levels, loaded.mean, loaded.std))


@pytest.mark.parametrize(("channels", "mode"), [(1, "RGB"), (3, "L")])
def test_images_get_the_channels_of_the_network(channels: int, mode: str) -> None:
    whole = whole_image(ramp(16, 16, mode), loaded_network(channels=channels))
    assert whole.pixels.shape[0] == channels and whole.shown.mode == {1: "L", 3: "RGB"}[channels]


def test_a_square_image_is_what_evaluations_without_a_margin_see() -> None:
    loaded = loaded_network()
    image = ramp(45, 45)
    resized = image.resize((16, 16), Image.Resampling.BICUBIC)
    assert whole_image(image, loaded).shown.tobytes() == resized.tobytes()


def center(whole: WholeImage, row: int, column: int) -> tuple[float, float]:
    left, top, right, bottom = whole.patch_box(row, column)
    return (left + right) / 2, (top + bottom) / 2


@pytest.mark.parametrize(("width", "height", "size"), [(100, 61, 26), (16, 16, 16), (7, 9, 16), (30, 90, 13)])
def test_points_and_patches(width: int, height: int, size: int) -> None:
    whole = whole_image(ramp(width, height), loaded_network(), size)
    rows, columns = whole.grid
    for row in range(rows):
        for column in range(columns):
            assert whole.patch_at(*center(whole, row, column)) == (row, column)
    assert whole.patch_box(0, 0)[:2] == whole.seen[:2]
    assert whole.patch_box(rows - 1, columns - 1)[2:] == pytest.approx(whole.seen[2:])


def test_points_that_were_cut_away() -> None:
    whole = whole_image(ramp(23, 16), loaded_network())
    assert whole.seen == (2, 0, 22, 16)
    assert whole.patch_at(1.9, 5) is None and whole.patch_at(22, 5) is None
    assert whole.patch_at(2, 0) == (0, 0) and whole.patch_at(21.9, 15.9) == (3, 4)
    assert whole.patch_at(5, -1) is None and whole.patch_at(5, 16) is None


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64), (40, 150)])
def test_swin_takes_every_multiple_of_its_stride(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(swin.SIZES, "swin_miniature", swin.Size(8, (2, 2, 2, 2), (1, 2, 2, 2)))
    loaded = loaded_network(arch="swin_miniature", image_size=64)
    whole = whole_image(ramp(width, height), loaded)
    rows, columns = whole.grid
    assert whole.stride == 32 and min(rows, columns) == 2
    with torch.no_grad():
        assert loaded.backbone(whole.pixels[None]).shape[1] == 1 + rows * columns


def test_less_than_a_patch_is_refused() -> None:
    with pytest.raises(UsageError, match="--size 3 is less than one patch of tiny, which is 4 pixels") as caught:
        whole_image(ramp(16, 16), loaded_network(), 3)
    assert caught.value.hint == "The network was made for 16."


@pytest.fixture(scope="module")
def timm_vit() -> LoadedBackbone:
    return _timm("vit_tiny_patch16_224")


def _timm(name: str) -> LoadedBackbone:
    import timm

    create = timm.create_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("timm.create_model", lambda name, **options: create(name, num_classes=0))
        return load_weights(f"timm:{name}")


def test_timm_takes_its_own_square(timm_vit: LoadedBackbone) -> None:
    whole = whole_image(ramp(448, 300, "RGB"), timm_vit)
    assert (whole.grid, whole.stride, whole.shown.size) == ((14, 14), 16, (224, 224))
    left, top, right, bottom = whole.seen
    assert (top, bottom) == (0, 300) and right - left == pytest.approx(300, abs=1) and left == pytest.approx(74, abs=1)
    with pytest.raises(
        UsageError, match="--size 480: timm:vit_tiny_patch16_224 takes images of 224 pixels only"
    ) as caught:
        whole_image(ramp(448, 300, "RGB"), timm_vit, 480)
    assert caught.value.hint == "Leave --size out."


def test_networks_without_a_grid_of_patches() -> None:
    with pytest.raises(WeightsError, match="timm:resnet18 has no grid of patches") as caught:
        whole_image(ramp(448, 300, "RGB"), _timm("resnet18"))
    assert caught.value.hint is not None and "vision transformer of timm" in caught.value.hint


def test_no_generator_is_touched() -> None:
    state = torch.get_rng_state()
    whole_image(ramp(40, 20), loaded_network())
    assert torch.equal(torch.get_rng_state(), state)


def test_long_strips_are_refused_before_they_are_enlarged() -> None:
    strip = Image.new("1", (32_768, 2))
    with pytest.raises(DataError) as caught:
        whole_image(strip, loaded_network())
    assert caught.value.message == (
        "An image of 32768 x 2 pixels is too large: it would be 65,536 x 4 patches, which is more than 32,768."
    )
    assert caught.value.hint is not None and "--size" in caught.value.hint
    assert whole_image(Image.new("1", (16_384, 2)), loaded_network(), 4).grid == (1, 8192)
