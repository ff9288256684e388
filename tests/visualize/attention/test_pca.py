"""Colours of patch features: one basis, a fixed sign, hand-made components."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ibot_cli.visualize.attention.pca import patch_colours, pca_figure
from ibot_cli.visualize.whole_image import whole_image
from tests.visualize.networks import loaded_network


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_components_by_hand() -> None:
    """Variance lies along three axes of an eight-dimensional space, most of it along axis 5, then 2, then 0."""
    features = torch.zeros(3 * 41, 8)
    steps = torch.linspace(-1, 1, 41)
    for block, (axis, size) in enumerate(((2, 2.0), (5, 3.0), (0, 1.0))):
        features[41 * block : 41 * block + 41, axis] = size * steps
    found = patch_colours([features + 7])
    assert found.explained == pytest.approx((9 / 14, 4 / 14, 1 / 14))
    (colours,) = found.images
    second, first, third = colours.reshape(3, 41, 3).unbind()
    assert first[0, 0] == 0 and first[-1, 0] == 1 and (first[1:, 0] >= first[:-1, 0]).all()
    assert second[0, 1] == 0 and second[-1, 1] == 1 and third[0, 2] == 0 and third[-1, 2] == 1
    torch.testing.assert_close(first[:, 1:], torch.full((41, 2), 0.5))
    # of 123 patches two at either end are cut: the values of axis 5 run from -3 in steps of 0.15
    torch.testing.assert_close(first[20 + 9, 0], torch.tensor(0.5 + 9 / (2 * 18)))


def test_equal_features_have_equal_colours_in_every_image() -> None:
    first, second = random(30, 6), random(20, 6, seed=1)
    second[7] = first[11]
    one, two = patch_colours([first, second]).images
    assert torch.equal(one[11], two[7]) and one.shape == (30, 3) and two.shape == (20, 3)
    alone = patch_colours([second]).images[0]
    assert not torch.allclose(alone, two, atol=0.05)


def test_the_sign_is_that_of_the_largest_entry() -> None:
    features = random(50, 1) * torch.tensor([[0.1, -2.0, 0.3]])
    (colours,) = patch_colours([features]).images
    order = features[:, 1].argsort()
    assert (colours[order][1:, 0] >= colours[order][:-1, 0]).all()  # red grows with the entry that weighs most
    assert torch.equal(patch_colours([features]).images[0], colours)


def test_a_basis_does_not_depend_on_the_order_of_the_images() -> None:
    first, second = random(30, 6), random(20, 6, seed=1)
    there, back = patch_colours([first, second]).images, patch_colours([second, first]).images
    torch.testing.assert_close(there[0], back[1])


@pytest.mark.parametrize("features", [torch.full((6, 5), 0.3), torch.ones(1, 4), torch.zeros(4, 3)])
def test_nothing_that_varies_is_grey(features: torch.Tensor) -> None:
    found = patch_colours([features])
    assert (found.images[0] == 0.5).all() and found.explained == pytest.approx((0, 0, 0), abs=1e-6)


def test_fewer_than_three_dimensions() -> None:
    found = patch_colours([random(40, 2)])
    assert (found.images[0][:, 2] == 0.5).all() and found.explained[2] == 0.0
    assert sum(found.explained) == pytest.approx(1)


def test_a_single_outlier_does_not_take_the_whole_range() -> None:
    features = torch.zeros(201, 4)
    features[:200, 0] = torch.linspace(0, 1, 200)
    features[200, 0] = 1000.0
    (colours,) = patch_colours([features]).images
    assert colours[100, 0] == pytest.approx(0.5, abs=0.02) and colours[200, 0] == 1


def test_the_sheet_shows_images_beside_their_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    pictures: list[Image.Image] = []

    def sheet(images: list[Image.Image], **options: object) -> Image.Image:
        pictures.extend(images)
        asked.update(options)
        return images[0]

    monkeypatch.setattr("ibot_cli.visualize.attention.pca.picture_sheet", sheet)
    loaded = loaded_network()
    wholes = [whole_image(Image.new("L", size, 90), loaded) for size in ((16, 16), (24, 16))]
    found = patch_colours([random(16, 5), random(24, 5, seed=1)])
    pca_figure(wholes, found, ["a", "b"], side=64)
    assert [picture.size for picture in pictures] == [(64, 64), (64, 64), (72, 48), (72, 48)]
    assert (asked["columns"], asked["side"], asked["height"]) == (4, 72, 64)
    assert asked["captions"] == ["a", "4 x 4 patches", "b", "6 x 4 patches"]
    levels = np.asarray(pictures[3]).reshape(4, 12, 6, 12, 3)
    assert (levels == levels[:, :1, :, :1]).all()
    expected = (found.images[1] * 255).round().reshape(4, 6, 3).numpy()
    assert np.array_equal(levels[:, 0, :, 0], expected)


def test_the_sheet_itself() -> None:
    loaded = loaded_network()
    wholes = [whole_image(Image.new("L", (16, 16 + 4 * n), 90), loaded) for n in range(5)]
    figure = pca_figure(wholes, patch_colours([random(16 + 4 * n, 5, seed=n) for n in range(5)]), list("abcde"))
    assert figure.mode == "RGB" and figure.width > 8 * 140 and figure.height > 2 * 200
