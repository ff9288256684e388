import numpy as np
import pytest
from PIL import Image

from ibot_cli.data.crops import center_crop, resize_shorter
from ibot_cli.data.transform import EvalTransform, eval_transform
from ibot_cli.visualize.patterns.geometry import Geometry


def transform(size: int, ratio: float) -> EvalTransform:
    found = eval_transform(size, ratio, 3, (0.0,) * 3, (1.0,) * 3)
    assert isinstance(found, EvalTransform)
    return found


@pytest.mark.parametrize(
    ("width", "height", "size", "ratio"),
    [(64, 64, 32, 1.0), (97, 61, 32, 0.875), (61, 97, 32, 0.875), (31, 200, 32, 0.9), (333, 250, 48, 0.7)],
)
def test_a_ramp_of_positions_goes_through_the_real_transform(width: int, height: int, size: int, ratio: float) -> None:
    """Each pixel says where it is; what the network saw then says where it was taken from."""
    found = Geometry.of(width, height, transform(size, ratio))
    resize = transform(size, ratio).resize_size
    for axis, length in ((0, width), (1, height)):
        line = np.arange(length, dtype=np.float32) + 0.5
        values = np.broadcast_to(line if axis == 0 else line[:, None], (height, width))
        view = np.asarray(center_crop(resize_shorter(Image.fromarray(np.ascontiguousarray(values)), resize), size))
        where = view[size // 2] if axis == 0 else view[:, size // 2]
        for pixel in range(4, size - 4):  # at the border the filter is cut off
            box = found.patch(pixel, pixel, 1)
            assert (box[axis] + box[axis + 2]) / 2 == pytest.approx(where[pixel], abs=0.02)


def test_the_patches_tile_what_was_seen() -> None:
    found = Geometry.of(97, 61, transform(32, 0.875))
    assert found.patch(0, 0, 8)[:2] == found.seen[:2]
    assert found.patch(3, 3, 8)[2:] == found.seen[2:]
    assert found.patch(1, 2, 8)[2] == found.patch(1, 3, 8)[0]
    assert found.patch(1, 2, 8)[3] == found.patch(2, 2, 8)[1]
    assert found.seen[0] >= 0 and found.seen[2] <= 97 and found.seen[1] >= 0 and found.seen[3] <= 61


def test_a_window_is_the_patches_around_and_may_stick_out() -> None:
    found = Geometry.of(64, 64, transform(32, 1.0))
    assert found.window(1, 1, 8, 3) == (0, 0, 48, 48)
    assert found.window(0, 0, 8, 3) == (-16, -16, 32, 32)
    assert found.window(2, 1, 8, 1) == found.patch(2, 1, 8) == (16, 32, 32, 48)
