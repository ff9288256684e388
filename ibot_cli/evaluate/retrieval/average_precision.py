"""How well a ranking by cosine finds the images of the query's class, over the whole ranking.

Shapes: N gallery and M query rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ibot_cli.evaluate.precision import exact_float32
from ibot_cli.evaluate.retrieval.nearest import finite_rows

KS = (1, 5, 10)
_BLOCK = {"cpu": 2**24, "cuda": 2**28}  # similarities held at once, 4 bytes each
_SORTED = {"cpu": 2**20, "cuda": 2**25}  # similarities ranked at once, about 60 bytes each
_CONVERTED = 2**20  # features held in float64 at once


@dataclass(frozen=True)
class Ranked:
    """Each query's ranking of the gallery.

    Attributes:
        counted: bool `[M]`, whether the query's class has an image in the gallery besides the query itself.
        average_precision: float64 `[M]`, 0 where not counted.
        precision_at: k -> float64 `[M]`, share of the query's class among the k nearest; of a smaller gallery, among
            all of it.
    """

    counted: NDArray[np.bool_]
    average_precision: NDArray[np.float64]
    precision_at: Mapping[int, NDArray[np.float64]]

    def means(self) -> tuple[float, dict[int, float]]:
        """Mean average precision and mean precision at each k, over the queries that count.

        Raises:
            ValueError: No query counts.
        """
        if not self.counted.any():
            raise ValueError("no query has an image of its class in the gallery")
        precision = {k: float(values[self.counted].mean()) for k, values in self.precision_at.items()}
        return float(self.average_precision[self.counted].mean()), precision


def rank_gallery(
    gallery: Tensor,
    labels: NDArray[np.int64],
    queries: Tensor,
    query_labels: NDArray[np.int64],
    *,
    ks: Sequence[int] = KS,
    exclude_self: bool = False,
    device: torch.device | str = "cpu",
    block: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ranked:
    """Average precision of every query over its whole ranking, and precision among the nearest.

    The average precision is the sum over ranks of precision times gain in recall, without interpolation, and equal
    similarities share a rank: scikit-learn's `average_precision_score`. (Published figures on revisited Oxford and
    Paris use trapezoids between ranks instead and ignore "junk" images.) Similarities are those of float64 arithmetic
    rounded to float32, so that a CPU and a GPU agree. Memory beyond the features is bounded.

    Args:
        gallery: Features `[N, D]`, any scale.
        labels: int64 `[N]`.
        queries: Features `[M, D]`.
        query_labels: int64 `[M]`, in the same numbering.
        ks: Where to measure precision.
        exclude_self: The queries are the gallery, row by row; a row is not in its own ranking.
        device: Where to compute.
        block: Similarities held at once.
        progress: Called with the queries done and their total.

    Raises:
        ValueError: There is nothing to rank, or the lengths differ.
        WeightsError: A feature is not finite.
    """
    lengths = len(gallery), len(queries)
    if (len(labels), len(query_labels)) != lengths or len(gallery) == 0 or (exclude_self and len(set(lengths)) > 1):
        raise ValueError(f"{lengths[0]} gallery and {lengths[1]} query rows do not fit their labels")
    device = torch.device(device)
    rows = max(1, (block or _BLOCK.get(device.type, _BLOCK["cpu"])) // len(gallery))
    step = max(1, min(rows, _SORTED.get(device.type, _SORTED["cpu"]) // len(gallery)))
    found = np.zeros((2 + len(ks), len(queries)))
    classes, wanted = (torch.from_numpy(part).to(device) for part in (labels, query_labels))
    with exact_float32(device):
        for start in range(0, len(queries), rows):
            similarity = _similarities(gallery, queries[start : start + rows].to(device))
            for first in range(start, start + len(similarity), step):
                part = similarity[first - start : first - start + step]
                own = slice(first, first + len(part)) if exclude_self else None
                relevant = classes == wanted[first : first + len(part)].unsqueeze(1)
                found[:, first : first + len(part)] = _scores(part, relevant, own, ks).cpu().numpy()
            if progress is not None:
                progress(start + len(similarity), len(queries))
    return Ranked(found[0] > 0, found[1], {k: found[2 + place] for place, k in enumerate(ks)})


def _similarities(gallery: Tensor, queries: Tensor) -> Tensor:
    """Cosines `[m, N]`, float32 from float64."""
    unit = functional.normalize(finite_rows(queries).double(), dim=1)
    found = torch.empty(len(queries), len(gallery), device=queries.device)
    step = max(1, _CONVERTED // gallery.shape[1])
    for start in range(0, len(gallery), step):
        part = finite_rows(gallery[start : start + step]).to(queries.device).double()
        found[:, start : start + step] = (unit @ functional.normalize(part, dim=1).T).float()
    return found


def _scores(similarity: Tensor, relevant: Tensor, own: slice | None, ks: Sequence[int]) -> Tensor:
    """float64 `[2 + len(ks), m]`: relevant images, average precision, precision at each k."""
    length = similarity.shape[1]
    if own is not None:  # the query itself goes to the very end, where it changes nothing
        itself = torch.arange(length, device=similarity.device) == torch.arange(
            own.start, own.stop, device=similarity.device
        ).unsqueeze(1)
        similarity, relevant = similarity.masked_fill(itself, -torch.inf), relevant & ~itself
        length -= 1
    values, order = similarity.sort(dim=1, descending=True, stable=True)
    found = relevant.gather(1, order).cumsum(dim=1)
    total = found[:, -1]
    ends = torch.ones_like(values, dtype=torch.bool)
    ends[:, :-1] = values[:, :-1] != values[:, 1:]  # the last rank of each group of equal similarities
    before = functional.pad(torch.where(ends, found, 0).cummax(dim=1).values[:, :-1], (1, 0))
    ranks = torch.arange(1, found.shape[1] + 1, device=found.device)
    gained = torch.where(ends, (found - before).double() * found / ranks, 0.0).sum(dim=1)
    nearest = [found[:, min(k, length) - 1].double() / min(k, length) if length else gained for k in ks]
    return torch.stack([total.double(), gained / total.clamp(min=1), *nearest])
