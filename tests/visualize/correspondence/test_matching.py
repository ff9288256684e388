"""Nearest patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ibot_cli.visualize.correspondence import matching
from ibot_cli.visualize.correspondence.matching import nearest_patches, patch_features
from tests.visualize.correspondence.known import loaded


@pytest.mark.parametrize("products", [1, 7, 2**24])
def test_as_by_brute_force(products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_PRODUCTS", products)
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1) for n in (7, 5))
    found = nearest_patches(first, second)
    cosines = np.array([[float(a @ b) for b in second] for a in first])
    np.testing.assert_array_equal(found.forward, cosines.argmax(axis=1))
    np.testing.assert_array_equal(found.back, cosines.argmax(axis=0))
    np.testing.assert_allclose(found.cosine, cosines.max(axis=1), atol=1e-6)
    mutual = [cosines[:, cosines[row].argmax()].argmax() == row for row in range(7)]
    assert 0 < sum(mutual) < 7
    np.testing.assert_array_equal(found.mutual, mutual)


def test_of_equally_near_ones_the_first_counts() -> None:
    found = nearest_patches(torch.ones(3, 1), torch.ones(2, 1))
    assert found.forward.tolist() == [0, 0, 0] and found.back.tolist() == [0, 0]
    assert found.mutual.tolist() == [True, False, False]


def test_features_have_length_1_and_no_gradient() -> None:
    features = patch_features(loaded(), torch.rand(2, 3, 16, 24) * 9, device=torch.device("cpu"))
    assert features.shape == (2, 6, 4) and not features.requires_grad
    torch.testing.assert_close(features.norm(dim=2), torch.ones(2, 6))
