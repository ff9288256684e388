"""Groups of images that are nearly or exactly the same, within one set of images; never more than blocks in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ibot_cli.data.groups import LinkedGroups
from ibot_cli.evaluate.precision import exact_float32
from ibot_cli.evaluate.retrieval.nearest import finite_rows

_SIDE = {"cpu": 1024, "cuda": 8192}  # rows and columns of a block of similarities


def near_groups(
    features: Tensor,
    *,
    threshold: float,
    device: torch.device | str = "cpu",
    side: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[NDArray[np.int64]]:
    """Rows that are connected by cosines above the threshold, directly or through others.

    Every pair is compared, in blocks; beyond one normalised copy of the features on `device`, memory is bounded
    however many pairs are alike.

    Args:
        features: `[n, D]`, any scale.
        threshold: A cosine (in float32) above it connects two rows.
        device: Where to compute.
        side: Rows and columns of a block.
        progress: Called with the rows done and their total.

    Returns:
        int64 rows, ascending, of each group of two or more; groups in the order of their first row.

    Raises:
        WeightsError: A feature is not finite.
    """
    device = torch.device(device)
    side = side or _SIDE.get(device.type, _SIDE["cpu"])
    linked = LinkedGroups(len(features))
    with exact_float32(device):
        unit = torch.empty(features.shape, dtype=torch.float32, device=device)
        for start in range(0, len(features), side):
            rows = finite_rows(features[start : start + side])
            unit[start : start + side] = functional.normalize(rows.to(device, torch.float32), dim=1)
        for start in range(0, len(features), side):
            for first, second in _pairs(unit, start, side, threshold):
                linked.join(first, second)
            if progress is not None:
                progress(min(start + side, len(features)), len(features))
    return linked.groups()


def _pairs(
    unit: Tensor, start: int, side: int, threshold: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows from `start` on and the rows after them that are alike, block by block."""
    block = unit[start : start + side]
    for other in range(start, len(unit), side):
        alike = block @ unit[other : other + side].T > threshold
        found = (alike.triu(1) if other == start else alike).nonzero().cpu().numpy()
        if len(found):
            yield found[:, 0] + start, found[:, 1] + other
