"""The distribution of the masks, against the authors' measured numbers and a plain rendering of their description."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ibot_cli.core.masking import MaskSampler
from tests import reference

SAMPLES = 4000


def sampler(kind: str, ratio: tuple[float, ...], var: tuple[float, ...] = (0.0,), grid: int = 14) -> MaskSampler:
    return MaskSampler(grid=grid, kind=kind, ratio=ratio, ratio_var=var)


def draw(masks: MaskSampler, count: int = SAMPLES, seed: int = 0) -> np.ndarray:
    """`[count, grid, grid]`."""
    rng = np.random.default_rng(seed)
    drawn = np.stack([masks.draw(rng) for _ in range(count)])
    assert drawn.dtype == bool and drawn.shape == (count, masks.grid, masks.grid)
    return drawn


def shares(masks: np.ndarray) -> np.ndarray:
    return masks.mean(axis=(1, 2))


@pytest.fixture(scope="module")
def blocks() -> np.ndarray:
    """14 x 14 at 0.3 without variance."""
    return draw(sampler("block", (0.3,)))


def test_published_numbers_at_a_fixed_ratio(blocks: np.ndarray) -> None:
    """Section 1.5: mean .292, sd .006, min .245, max .296 over 4,000 masks."""
    drawn = shares(blocks)
    assert drawn.mean() == pytest.approx(0.292, abs=0.001)
    assert drawn.std() == pytest.approx(0.006, abs=0.0015)
    assert 0.22 < drawn.min() < 0.26
    assert drawn.max() == pytest.approx(58 / 196, abs=1e-9)


@pytest.mark.parametrize(
    ("grid", "ratio", "var", "mean", "sd"),
    [(14, 0.3, 0.2, 0.293, 0.117), (14, 0.7, 0.05, 0.695, 0.029), (7, 0.3, 0.0, 0.284, None)],
)
def test_published_numbers(grid: int, ratio: float, var: float, mean: float, sd: float | None) -> None:
    drawn = shares(draw(sampler("block", (ratio,), (var,), grid)))
    assert drawn.mean() == pytest.approx(mean, abs=0.006)
    assert drawn.min() > 0
    if sd is not None:
        assert drawn.std() == pytest.approx(sd, abs=0.004)


@pytest.mark.parametrize(("grid", "ratio"), [(14, 0.3), (7, 0.3), (4, 0.5)])
def test_same_distribution_as_the_plain_rendering(grid: int, ratio: float) -> None:
    """Counts, where patches are hidden, and how ragged the masks are (sides between hidden and seen patches)."""
    ours = draw(sampler("block", (ratio,), grid=grid), 2500)
    rng = random.Random(1)
    theirs = np.stack([reference.block_mask(rng, grid, ratio * grid**2) for _ in range(1000)])
    assert shares(ours).mean() == pytest.approx(shares(theirs).mean(), abs=0.01)
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 0.08  # five standard errors of a frequency near 0.3

    def sides(masks: np.ndarray) -> float:
        return float((masks[:, 1:] != masks[:, :-1]).sum() + (masks[:, :, 1:] != masks[:, :, :-1]).sum()) / len(masks)

    assert sides(ours) == pytest.approx(sides(theirs), rel=0.04)


def test_blocks_are_not_single_patches(blocks: np.ndarray) -> None:
    """A hidden patch has on average well over two hidden neighbours; scattered ones would have 1.2."""
    padded = np.pad(blocks, ((0, 0), (1, 1), (1, 1)))
    neighbours = padded[:, :-2, 1:-1].astype(int) + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    assert neighbours[blocks].mean() > 2.5


@pytest.mark.parametrize("grid", [1, 2, 4, 6, 7, 14])
@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.3, 0.75, 1.0])
def test_never_more_than_the_target(grid: int, ratio: float) -> None:
    counts = draw(sampler("block", (ratio,), grid=grid), 60).sum(axis=(1, 2))
    assert counts.max() <= ratio * grid * grid


@pytest.mark.parametrize(("grid", "ratio"), [(14, 0.3), (14, 0.7), (7, 0.15), (4, 0.99), (10, 0.29), (5, 0.0)])
def test_random_masks_have_exactly_the_whole_part_of_the_target(grid: int, ratio: float) -> None:
    masks = draw(sampler("random", (ratio,), grid=grid), 50)
    assert set(masks.sum(axis=(1, 2))) == {int(ratio * grid * grid)}


def test_random_masks_hide_every_patch_equally_often() -> None:
    often = draw(sampler("random", (0.3,), grid=7), 3000).mean(axis=0)
    assert np.abs(often - 14 / 49).max() < 5 * np.sqrt(0.2 / 3000)


def test_list_of_ratios_picks_one_entry_per_view() -> None:
    """The published 0, 0.3 +- 0.2: half the views are whole, the rest uniform from 0.1 to 0.5."""
    drawn = shares(draw(sampler("random", (0.0, 0.3), (0.0, 0.2))))
    assert (drawn == 0).mean() == pytest.approx(0.5, abs=0.03)
    some = drawn[drawn > 0]
    assert 0.09 < some.min() < 0.11 and 0.49 < some.max() <= 0.5
    assert np.quantile(some, [0.25, 0.5, 0.75]) == pytest.approx([0.2, 0.3, 0.4], abs=0.015)


def test_ratios_follow_the_plain_rendering() -> None:
    ratio, var = (0.1, 0.4, 0.7), (0.0, 0.1, 0.3)
    ours = shares(draw(sampler("random", ratio, var, grid=30), 3000))
    rng = random.Random(0)
    theirs = np.array([reference.mask_ratio(rng, list(ratio), list(var)) for _ in range(3000)])
    points = np.linspace(0.05, 0.95, 37) + 0.003  # off the two fixed shares
    below = [(drawn[:, None] < points).mean(0) for drawn in (ours, theirs)]
    assert np.abs(below[0] - below[1]).max() < 0.045


def test_one_variance_serves_all_entries() -> None:
    first, second = (sampler("block", (0.2, 0.5), var) for var in ((0.1,), (0.1, 0.1)))
    assert np.array_equal(draw(first, 50), draw(second, 50))


def test_same_generator_same_masks() -> None:
    masks = sampler("block", (0.0, 0.3), (0.0, 0.2))
    assert np.array_equal(draw(masks, 50), draw(masks, 50))
    assert not np.array_equal(draw(masks, 50), draw(masks, 50, seed=1))


def test_global_generators_are_left_alone() -> None:
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    draw(sampler("block", (0.3,)), 20)
    draw(sampler("random", (0.3,)), 20)
    assert np.array_equal(np.random.get_state()[1], before[0]) and random.getstate() == before[1]  # noqa: NPY002
