"""Crops against torchvision on Pillow images, turned ones against Pillow, deep ones against their own 8 bits."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms.v2 import functional as F

from ibot_cli.data.crops import BICUBIC, crop_resized
from ibot_cli.data.tensor_crops import cut_levels


class Cut(NamedTuple):
    box: tuple[int, int, int, int]
    size: int
    degrees: float = 0.0


CHINA = load_sample_image("china.jpg")
BOXES = [(0, 0, 640, 427), (100, 50, 300, 260), (13, 7, 151, 200), (320, 200, 96, 96), (5, 390, 31, 37)]


def levels(channels: int, *, side: int | None = None) -> np.ndarray:
    image = Image.fromarray(CHINA).convert({1: "L", 3: "RGB"}[channels])
    if side:
        image = image.resize((side, side))
    return np.array(image).reshape(image.height, image.width, channels)


def as_image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [224, 96])
def test_crops_are_those_of_torchvision_and_of_pillow_to_one_level(channels: int, size: int) -> None:
    values = levels(channels)
    crops = cut_levels(values, [Cut(box, size) for box in BOXES])
    planes = torch.from_numpy(values).permute(2, 0, 1)
    for crop, (left, top, width, height) in zip(crops, BOXES, strict=True):
        assert crop.shape == (size, size, channels) and crop.dtype == torch.uint8
        theirs = F.resized_crop(planes, top, left, height, width, [size, size], F.InterpolationMode.BICUBIC)
        assert torch.equal(crop, theirs.permute(1, 2, 0))
        part = as_image(values).crop((left, top, left + width, top + height))
        rows_first = part.resize((size, height), BICUBIC).resize((size, size), BICUBIC)
        difference = np.abs(crop.numpy() - np.asarray(rows_first).reshape(size, size, channels).astype(int))
        # where two filters overshoot, one level in millions is 2 off
        assert difference.max() <= 2 and (difference > 1).mean() <= 1e-5 and difference.mean() < 0.02


@pytest.mark.parametrize(("channels", "side"), [(1, 32), (3, 48)])
def test_tiny_images(channels: int, side: int) -> None:
    values = levels(channels, side=side)
    cuts = [Cut((0, 0, side, side), 16), Cut((2, 3, 21, 18), 16), Cut((4, 4, 12, 12), 12), Cut((1, 2, 9, 7), 12)]
    for crop, cut in zip(cut_levels(values, cuts), cuts, strict=True):
        expected = np.asarray(crop_resized(as_image(values), cut.box, cut.size)).reshape(cut.size, cut.size, channels)
        assert np.abs(crop.numpy() - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_turned_crops_are_those_of_pillow(channels: int) -> None:
    values = levels(channels)
    cuts = [Cut((100, 50, 300, 260), 96, 12.5), Cut((0, 0, 200, 200), 64, -30.0), Cut((10, 20, 90, 80), 64)]
    for crop, cut in zip(cut_levels(values, cuts), cuts, strict=True):
        expected = np.asarray(crop_resized(as_image(values), *cut)).reshape(cut.size, cut.size, channels)
        np.testing.assert_array_equal(crop.numpy(), expected)


@pytest.mark.parametrize("degrees", [0.0, 17.0])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_levels_of_any_kind(degrees: float, channels: int, dtype: type) -> None:
    depth = 257 if dtype == np.uint16 else 1
    gray = levels(1)
    values = np.concatenate([np.roll(gray, 20 * place, axis=1) for place in range(channels)], axis=2).astype(dtype)
    box = (100, 50, 300, 260)
    (crop,) = cut_levels(values * dtype(depth), [Cut(box, 96, degrees)])
    assert crop.shape == (96, 96, channels) and crop.dtype == (torch.uint16 if depth > 1 else torch.uint8)
    for place in range(channels):
        band = np.ascontiguousarray(values[..., place].astype(np.uint8))
        expected = np.asarray(crop_resized(Image.fromarray(band), box, 96, degrees)).astype(int)
        found = crop[..., place].numpy().astype(int) / depth
        difference = np.abs(found - expected)
        # Pillow cuts what overshoots after each step, and rounds to whole levels of 8 bits
        assert difference.max() <= (4 if degrees else 2) and difference.mean() < 0.55


def test_levels_stay_within_their_range() -> None:
    checks = np.zeros((80, 80, 2), dtype=np.uint16)
    checks[::7, ::5] = 65535
    (crop,) = cut_levels(checks, [Cut((1, 2, 70, 61), 48)])
    values = crop.numpy().astype(int)
    assert values.max() > 10_000 and values.min() >= 0
    flat = np.full((40, 40, 2), 65535, dtype=np.uint16)
    assert (cut_levels(flat, [Cut((3, 3, 30, 31), 24)])[0].numpy() == 65535).all()


def test_memory_of_the_image_is_not_written_to() -> None:
    values = levels(3)
    values.flags.writeable = False
    before = values.copy()
    crops = cut_levels(values, [Cut(box, 64) for box in BOXES])
    assert len(crops) == len(BOXES) and np.array_equal(values, before)
