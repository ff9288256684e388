"""Groups of images that are nearly or exactly the same, within one set of images; never more than blocks in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional

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
    parent = np.arange(len(features), dtype=np.int64)
    with exact_float32(device):
        unit = torch.empty(features.shape, dtype=torch.float32, device=device)
        for start in range(0, len(features), side):
            rows = finite_rows(features[start : start + side])
            unit[start : start + side] = functional.normalize(rows.to(device, torch.float32), dim=1)
        for start in range(0, len(features), side):
            for first, second in _pairs(unit, start, side, threshold):
                _join(parent, first, second)
            if progress is not None:
                progress(min(start + side, len(features)), len(features))
    return _groups(_roots(parent, np.arange(len(features))))


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


def _join(parent: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
    """Unite the sets of each pair; the smallest row stands for its set, and no row points to a larger one."""
    first, second = _roots(parent, first), _roots(parent, second)
    apart = first != second
    members, places = np.unique(np.concatenate([first[apart], second[apart]]), return_inverse=True)
    if len(members) == 0:
        return
    links = len(places) // 2
    ends = (places[:links], places[links:])
    graph = coo_array((np.ones(links, dtype=np.bool_), ends), shape=(len(members), len(members)))
    number, component = connected_components(graph, directed=False)
    smallest = np.full(number, len(parent), dtype=np.int64)
    np.minimum.at(smallest, component, members)
    parent[members] = smallest[component]


def _roots(parent: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row that stands for the set of each of `rows`; their paths are shortened."""
    found = parent[rows]
    while True:
        above = parent[found]
        if np.array_equal(above, found):
            break
        found = above
    parent[rows] = found
    return found


def _groups(roots: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    order = np.argsort(roots, kind="stable")
    ends = np.flatnonzero(np.diff(roots[order])) + 1
    return [group for group in np.split(order, ends) if len(group) > 1]
