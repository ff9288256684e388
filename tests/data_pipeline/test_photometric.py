"""torchvision on Pillow images is the oracle."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from torchvision.transforms import functional as F

from ibot_cli.data.gray import change_stack
from ibot_cli.data.photometric import Changes, Strengths, apply_changes, draw_changes

PUBLISHED = Strengths(0.5, 0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, (0.1, 2.0), 0.2)


def picture(mode, size=(40, 31), seed=0):
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(noise).resize((size[0] * 2, size[1] * 2), Image.Resampling.BICUBIC).resize(size)


def torchvision_result(image, changes, threshold):
    if changes.flip:
        image = F.hflip(image)
    jitter = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    for op, factor in changes.jitter:
        image = jitter[op](image, factor)
    if changes.gray:
        image = F.rgb_to_grayscale(image, len(image.getbands()))
    if changes.blur_radius:
        image = image.filter(ImageFilter.GaussianBlur(changes.blur_radius))
    return F.solarize(image, threshold) if changes.solarize else image


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("threshold", [0, 128, 256])
def test_pixels_are_those_of_torchvision(mode, threshold):
    rng = np.random.default_rng(1)
    for seed in range(60):
        image = picture(mode, (40, 31) if seed % 2 else (90, 70), seed)
        changes = draw_changes(PUBLISHED, rng.random(14).tolist())
        ours = apply_changes(image, changes, threshold)
        assert ours.mode == mode
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(torchvision_result(image, changes, threshold)))


@pytest.mark.parametrize("op", range(4))
@pytest.mark.parametrize("end", [-1, 1])
def test_pixels_at_the_ends_of_the_jitter_ranges(op, end):
    factor = (op != 3) + end * (0.5 if op == 3 else 1.0)
    image = picture("RGB")
    changes = Changes(False, ((op, factor),), False, 0.0, False)
    ours = apply_changes(image, changes, 128)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(torchvision_result(image, changes, 128)))


def test_the_input_stays_as_it_is():
    image = picture("RGB")
    before = image.tobytes()
    apply_changes(image, Changes(True, ((0, 0.6), (1, 1.3), (3, 0.1)), True, 1.0, True), 128)
    assert image.tobytes() == before


def test_a_stack_of_grey_views_is_changed_as_each_by_itself(monkeypatch):
    rng = np.random.default_rng(2)
    strengths = PUBLISHED._replace(saturation=0.0, hue=0.0, gray_prob=0.0)
    changes = [draw_changes(strengths, rng.random(14).tolist()) for _ in range(300)]
    levels = rng.integers(0, 256, (300, 8, 8), dtype=np.uint8)
    pairs = zip(levels, changes, strict=True)
    expected = np.stack([np.asarray(apply_changes(Image.fromarray(view), change, 128)) for view, change in pairs])
    np.testing.assert_array_equal(change_stack(levels.copy(), changes, 128), expected)
    monkeypatch.setattr("ibot_cli.data.gray.MAX_PIXELS", 64 * 7)
    np.testing.assert_array_equal(change_stack(levels.copy(), changes, 128), expected)


def test_frequencies_and_ranges_are_the_published_ones():
    draws = np.random.default_rng(3).random((4000, 14))
    changes = [draw_changes(PUBLISHED, row) for row in draws.tolist()]
    for expected, name in [(0.5, "flip"), (0.8, "jitter"), (0.2, "gray"), (0.5, "blur_radius"), (0.2, "solarize")]:
        assert np.mean([bool(getattr(change, name)) for change in changes]) == pytest.approx(expected, abs=0.03)
    radii = np.array([change.blur_radius for change in changes if change.blur_radius])
    assert radii.min() >= 0.1 and radii.max() <= 2.0 and radii.mean() == pytest.approx(1.05, abs=0.05)
    jitters = [change.jitter for change in changes if change.jitter]
    for op, low, high in [(0, 0.6, 1.4), (1, 0.6, 1.4), (2, 0.8, 1.2), (3, -0.1, 0.1)]:
        factors = np.array([dict(jitter)[op] for jitter in jitters])
        assert low <= factors.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < factors.max() <= high
    orders = [tuple(op for op, _ in jitter) for jitter in jitters]
    assert len(set(orders)) == 24 and max(map(orders.count, set(orders))) < 2 * len(orders) / 24


def test_strengths_of_zero_draw_nothing():
    none = Strengths(0, 0, 0.4, 0.4, 0.2, 0.1, 0, 0, (0.1, 2.0), 0)
    assert draw_changes(none, [0.0] * 14) == Changes(False, (), False, 0.0, False)
    only_contrast = Strengths(0, 1, 0, 0.4, 0, 0, 0, 0, (0.1, 2.0), 0)
    assert draw_changes(only_contrast, [0.5] * 14).jitter == ((1, 1.0),)
