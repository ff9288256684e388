from __future__ import annotations

import numpy as np
import pytest

from ibot_cli.core.buckets import bucket_sizes, fitting
from ibot_cli.core.masking import MaskSampler

PUBLISHED = MaskSampler(grid=14, kind="block", ratio=(0.0, 0.3), ratio_var=(0.0, 0.2))


def drawn(masks: MaskSampler, num_views: int, batches: int = 40) -> list[int]:
    rng = np.random.default_rng(7)
    return [sum(int(masks.draw(rng).sum()) for _ in range(num_views)) for _ in range(batches)]


@pytest.mark.parametrize("images", [1, 8, 32])
def test_published_masks_need_at_most_four_sizes_and_little_padding(images: int) -> None:
    sizes = bucket_sizes(PUBLISHED, 2 * images)
    assert 1 <= len(sizes) <= 4 and list(sizes) == sorted(set(sizes))
    assert sizes == bucket_sizes(PUBLISHED, 2 * images), "the sizes depend on nothing but the arguments"
    assert sizes[-1] == 2 * images * 98, "half of the 196 patches of every view"
    if images > 1:
        totals = drawn(PUBLISHED, 2 * images)
        assert sum(fitting(sizes, total) for total in totals) < 1.3 * sum(totals)


@pytest.mark.parametrize(
    ("masks", "largest"),
    [
        (MaskSampler(grid=14, kind="random", ratio=(0.7,), ratio_var=(0.0,)), 137),
        (MaskSampler(grid=14, kind="random", ratio=(0.2, 0.5), ratio_var=(0.1,)), 117),
        (MaskSampler(grid=7, kind="block", ratio=(0.9,), ratio_var=(0.2,)), 49),
    ],
)
def test_no_mask_hides_more_than_the_largest(masks: MaskSampler, largest: int) -> None:
    assert masks.largest == largest
    assert max(drawn(masks, 1, 200)) <= largest
    assert bucket_sizes(masks, 6)[-1] == 6 * largest


def test_masks_of_one_size_need_one_size() -> None:
    masks = MaskSampler(grid=4, kind="random", ratio=(0.5,), ratio_var=(0.0,))
    assert bucket_sizes(masks, 4) == (32,)


def test_masks_that_hide_nothing_still_have_a_size() -> None:
    assert bucket_sizes(MaskSampler(grid=4, kind="random", ratio=(0.0,), ratio_var=(0.0,)), 4) == (1,)


def test_the_smallest_size_that_holds_them_is_taken() -> None:
    assert [fitting((8, 16, 30), count) for count in (0, 8, 9, 30)] == [8, 8, 16, 30]
    with pytest.raises(ValueError, match="31 masked patches fit into none of 8, 16, 30"):
        fitting((8, 16, 30), 31)
