"""Sets of patches and figures that were worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ibot_cli.visualize.attention.mass import head_figures, mass_mask

MAP = torch.tensor([[[0.4, 0.1, 0.1], [0.3, 0.05, 0.05]]])


@pytest.mark.parametrize(
    ("mass", "held"),
    [
        (0.01, [0]),
        (0.4, [0]),
        (0.41, [0, 3]),
        (0.7, [0, 3]),  # 0.4 + 0.3, although float32 sums are a little off
        (0.75, [0, 1, 3]),  # of the two 0.1 the first
        (0.9, [0, 1, 2, 3]),
        (0.91, [0, 1, 2, 3, 4]),
        (1.0, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_smallest_set(mass: float, held: list[int]) -> None:
    assert mass_mask(MAP, mass).flatten().nonzero().flatten().tolist() == held
    assert torch.equal(mass_mask(MAP * 0.25, mass), mass_mask(MAP, mass))  # the mass is of what falls on patches


def test_every_map_by_itself() -> None:
    maps = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]], [[0.0, 0.0]]])
    assert mass_mask(maps, 0.6).flatten(1).tolist() == [[True, False], [True, True], [False, False]]
    assert not mass_mask(maps, 1.0)[0, 0, 1]


def test_of_many_equal_patches_the_first_are_taken() -> None:
    assert mass_mask(torch.full((1, 40, 50), 0.1), 0.25).flatten().nonzero().flatten().tolist() == list(range(500))


def test_figures() -> None:
    even, single, part = head_figures(torch.stack([torch.full((2, 4), 0.1), one_hot(), torch.zeros(2, 4)]), 0.6)
    assert (even.head, single.head, part.head) == (1, 2, 3)
    assert (even.patches_for_mass, even.share_for_mass) == (5, 5 / 8)
    assert even.on_patches == pytest.approx(0.8) and even.entropy == pytest.approx(1)
    assert (single.patches_for_mass, single.on_patches, single.entropy) == (1, 1.0, 0.0)
    assert (part.patches_for_mass, part.on_patches, part.entropy) == (0, 0.0, 0.0)


def test_entropy_is_that_of_the_patches_alone() -> None:
    two = torch.zeros(1, 2, 4)
    two[0, 0, :2] = 0.2  # 0.6 fall on the class token
    assert head_figures(two, 0.6)[0].entropy == pytest.approx(math.log(2) / math.log(8))


def test_a_single_patch() -> None:
    assert head_figures(torch.ones(1, 1, 1), 0.6)[0].entropy == 0.0


def one_hot() -> torch.Tensor:
    return torch.eye(8)[3].reshape(2, 4)
