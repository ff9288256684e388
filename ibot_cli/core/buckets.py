"""A few sizes for the number of masked patches, so that compiled code meets the same shapes again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ibot_cli.core.masking import MaskSampler

DRAWS, BATCHES = 512, 2048
QUANTILES = (0.4, 0.8, 0.99)
ALIGNMENT = 8  # half-precision products are fastest where sizes are multiples of it


def bucket_sizes(masks: MaskSampler, num_views: int) -> tuple[int, ...]:
    """At most four sizes, ascending, for the masked patches of a micro-batch.

    The sizes follow the distribution of the number of masked patches, which is drawn from a fixed seed: most
    micro-batches are padded by less than its spread, and the largest size holds whatever the sampler can draw.

    Args:
        masks: What draws the masks.
        num_views: Masks of one micro-batch: its images times the global views.
    """
    rng = np.random.default_rng(0)
    counts = np.array([masks.draw(rng).sum() for _ in range(DRAWS)])
    totals = np.array([rng.choice(counts, num_views).sum() for _ in range(BATCHES)])
    largest = num_views * masks.largest
    usual = [-(-int(np.quantile(totals, share)) // ALIGNMENT) * ALIGNMENT for share in QUANTILES]
    return tuple(sorted({max(min(size, largest), 1) for size in (*usual, largest)}))


def fitting(sizes: Sequence[int], count: int) -> int:
    """The smallest of the ascending `sizes` that holds `count` entries.

    Raises:
        ValueError: None does.
    """
    for size in sizes:
        if size >= count:
            return size
    raise ValueError(f"{count} masked patches fit into none of {', '.join(map(str, sizes))}")
