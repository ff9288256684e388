import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F
from torchvision.transforms.functional import InterpolationMode

from ibot_cli.data.crops import center_crop, crop_box, crop_resized, resize_shorter

ASPECT = (3 / 4, 4 / 3)


def picture(size=(60, 45)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def boxes(size, scale, count):
    rng = np.random.default_rng(0)
    return np.array([crop_box(*size, scale, ASPECT, rng.random(4).tolist(), rng) for _ in range(count)])


@pytest.mark.parametrize(
    ("size", "scale"),
    [((500, 375), (0.25, 1.0)), ((500, 375), (0.05, 0.25)), ((32, 32), (0.25, 1.0)), ((100, 300), (0.9, 1.0))],
)
def test_boxes_are_distributed_as_those_of_torchvision(size, scale):
    count = 1500
    ours = boxes(size, scale, count)
    image = torch.empty(3, size[1], size[0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = np.array([RandomResizedCrop.get_params(image, scale, ASPECT) for _ in range(count)])[:, [1, 0, 3, 2]]
    for column in range(4):
        a, b = ours[:, column], theirs[:, column]
        spread = max(a.std(), b.std(), 0.5)
        assert abs(a.mean() - b.mean()) < 5 * spread / np.sqrt(count / 2)
        assert abs(a.std() - b.std()) < 5 * spread / np.sqrt(count / 2)
        grid = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()), 9)
        distance = np.abs(np.searchsorted(np.sort(a), grid) - np.searchsorted(np.sort(b), grid)).max() / count
        assert distance < 0.08
    assert (ours[:, :2] >= 0).all() and (ours[:, 0] + ours[:, 2] <= size[0]).all()
    assert (ours[:, 1] + ours[:, 3] <= size[1]).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 10), (493, 0, 13, 10)),
        ((10, 1000), (0, 493, 10, 13)),
        ((30, 30), (0, 0, 30, 30)),
    ],
)
def test_boxes_that_never_fit_become_the_largest_central_one(size, expected):
    rng = np.random.default_rng(0)
    assert crop_box(*size, (5.0, 6.0), ASPECT, [0.5] * 4, rng) == expected


@pytest.mark.parametrize("box", [(0, 0, 60, 45), (3, 5, 40, 33), (10, 10, 24, 24), (1, 2, 9, 7)])
def test_pixels_are_those_of_torchvision(box):
    left, top, width, height = box
    theirs = F.resized_crop(picture(), top, left, height, width, [24, 24], InterpolationMode.BICUBIC)
    np.testing.assert_array_equal(np.asarray(crop_resized(picture(), box, 24)), np.asarray(theirs))


@pytest.mark.parametrize("degrees", [-37.0, 10.0, 100.0])
def test_a_rotated_crop_is_the_crop_of_the_rotated_image(degrees):
    image = picture()
    turned = image.rotate(degrees, Image.Resampling.BICUBIC)
    ours, whole = np.asarray(crop_resized(image, (7, 4, 40, 40), 40, degrees)), np.asarray(turned)
    np.testing.assert_allclose(ours.astype(int), whole[4:44, 7:47].astype(int), atol=1)


@pytest.mark.parametrize("size", [(60, 45), (45, 60), (31, 31), (7, 90)])
def test_evaluation_pixels_are_those_of_torchvision(size):
    image = picture(size)
    theirs = F.center_crop(F.resize(image, 36, InterpolationMode.BICUBIC), [32, 32])
    np.testing.assert_array_equal(np.asarray(center_crop(resize_shorter(image, 36), 32)), np.asarray(theirs))
