"""Moments of the channels against plain numpy."""

import numpy as np
import pytest

from ibot_cli.data.moments import Moments, histograms, moments_of


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_moments_are_those_of_all_pixels(channels: int, dtype: type) -> None:
    levels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (7, 11, channels), dtype=dtype, endpoint=True)
    found = moments_of(histograms(levels))
    scaled = levels.reshape(-1, channels) / np.iinfo(dtype).max
    np.testing.assert_allclose(found.mean, scaled.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, scaled.std(axis=0), rtol=1e-9)


def test_every_image_weighs_the_same_whatever_its_size() -> None:
    small, large = np.zeros((2, 2, 1), np.uint8), np.full((90, 80, 1), 255, np.uint8)
    each = [moments_of(histograms(levels)) for levels in (small, large)]
    pooled = Moments(np.stack([one.mean for one in each]), np.stack([one.square for one in each])).pooled()
    assert pooled.mean == pytest.approx(0.5)
    assert pooled.std == pytest.approx(0.5)


def test_a_blank_image_has_no_deviation() -> None:
    found = moments_of(histograms(np.full((9, 9, 3), 77, np.uint8)))
    np.testing.assert_allclose(found.mean, 77 / 255)
    np.testing.assert_allclose(found.std, 0.0, atol=1e-7)
