import numpy as np
import pytest
import torch

from ibot_cli.visualize.report.samples.principal import colour_picture, shared_colours


def test_equal_features_have_equal_colours_in_every_image() -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(4, 16, generator=generator)
    first, second = shared_colours([kinds[[0, 1, 2]], kinds[[2, 3, 0, 0]]])
    assert torch.equal(first[0], second[2]) and torch.equal(first[2], second[0])
    assert len({tuple(row) for row in torch.cat([first, second]).tolist()}) == 4


def test_red_is_where_features_vary_most() -> None:
    features = torch.zeros(101, 8)
    features[:, 5] = torch.linspace(-10, 10, 101)
    features[:, 2] = torch.linspace(-1, 1, 101).square()
    (colours,) = shared_colours([features])
    assert colours[0].tolist()[0] == 0.0 and colours[-1].tolist()[0] == 1.0  # the sign follows the largest part: up
    assert (colours[:, 0].diff() >= 0).all()
    assert colours[50, 1] == colours[:, 1].min() and torch.allclose(colours[:, 1], colours[:, 1].flip(0), atol=1e-6)
    assert (colours[:, 2] == 0.5).all()


@pytest.mark.parametrize("width", [1, 2, 3])
def test_few_dimensions_and_a_single_patch(width: int) -> None:
    assert shared_colours([torch.ones(1, width)])[0].tolist() == [[0.5, 0.5, 0.5]]
    (colours,) = shared_colours([torch.eye(4)[:, :width]])
    assert colours.shape == (4, 3) and bool(((colours >= 0) & (colours <= 1)).all())


def test_a_pixel_per_patch_row_by_row() -> None:
    colours = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0.5, 0.5, 0.5]])
    picture = np.asarray(colour_picture(colours, (2, 3)))
    assert picture.tolist()[1] == [[0, 0, 255], [255, 255, 255], [128, 128, 128]]
