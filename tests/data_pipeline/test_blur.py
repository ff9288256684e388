"""SciPy's Gaussian in double precision is the oracle."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ibot_cli.data.blur import TRUNCATE, blurred


def exact(values, sigma):
    return gaussian_filter(values, sigma, axes=(1, 2), mode="nearest", truncate=max(10, 2 / sigma))


@pytest.mark.parametrize("size", [(40, 31), (5, 9), (1, 1), (1, 30), (150, 200)])
def test_each_view_has_its_own_gaussian(size):
    sigmas = [0.05, 0.1, 0.24, 0.49, 1.0, 1.7, 2.0]
    levels = 255.0 * (np.random.default_rng(0).random((len(sigmas), 2, *size)) > 0.5)
    ours = blurred(torch.from_numpy(levels).float(), torch.tensor(sigmas), reach=10)
    for view, values, sigma in zip(ours, levels, sigmas, strict=True):
        np.testing.assert_allclose(view.numpy(), exact(values, sigma), atol=0.01)


def test_wide_gaussians():
    levels = 255.0 * (np.random.default_rng(0).random((1, 1, 160, 20)) > 0.5)
    ours = blurred(torch.from_numpy(levels).float(), torch.tensor([9.0]), reach=int(TRUNCATE * 9))
    np.testing.assert_allclose(ours[0].numpy(), exact(levels[0], 9.0), atol=0.01)
