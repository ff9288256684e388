"""k-means: several seeded runs of Lloyd's algorithm, each to convergence, and the best of them.

Shapes: n rows, K centres, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ibot_cli.errors import WeightsError
from ibot_cli.evaluate.cluster.center_search import Backend, center_search, choose_backend, squared_distances
from ibot_cli.evaluate.precision import exact_float32

MAX_ITERATIONS = 300
_IMPROVEMENT = 1e-6  # of the inertia; a run that gains less has converged
_SAME = 1e-6  # of the mean squared length; a row closer than that to its centre has no cluster of its own to found
_SEED_ROWS, _SEED_ROWS_PER_CENTER = 10_000, 20  # of the rows that the first centres are chosen from, the larger
_CHUNK_ROWS = 2**14
_CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**25}  # distances held at once


@dataclass(frozen=True, kw_only=True, eq=False)
class KMeans:
    """The best of several runs.

    Attributes:
        assignments: Cluster of each row, int64 `[n]`; cluster 0 is the largest, and so on.
        centers: float32 `[K, D]` on the CPU; unit vectors where the clustering is spherical.
        squared: Squared distance of each row to its centre, float32 `[n]` on the CPU.
        inertia: Sum of the squared distances; of the normalised rows where the clustering is spherical.
        inertias: The same of every run.
        runs: Assignments of every run, int64 `[n]`, numbered like `assignments`.
        iterations: Of the best run.
        converged: Whether the best run came to rest within the allowed iterations.
        backend: `torch` or `faiss`.
    """

    assignments: NDArray[np.int64]
    centers: Tensor
    squared: Tensor
    inertia: float
    inertias: tuple[float, ...]
    runs: tuple[NDArray[np.int64], ...]
    iterations: int
    converged: bool
    backend: str


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows with their mean taken off, which keeps float32 distances exact, and how to go through them."""

    values: Tensor
    mean: Tensor
    spherical: bool
    backend: Literal["torch", "faiss"]
    step: int

    def chunks(self) -> Iterator[slice]:
        for start in range(0, len(self.values), self.step):
            yield slice(start, min(start + self.step, len(self.values)))


@dataclass(frozen=True, eq=False)
class _Run:
    assigned: Tensor
    centers: Tensor
    inertia: float
    iterations: int
    converged: bool


def kmeans(
    features: Tensor,
    k: int,
    *,
    spherical: bool = False,
    restarts: int = 10,
    seed: int = 0,
    backend: Backend = "auto",
    device: torch.device | str = "cpu",
    max_iterations: int = MAX_ITERATIONS,
    chunk_elements: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> KMeans:
    """Cluster rows; the same answer for the same seed, machine and number of threads.

    Every run starts with greedy k-means++ and repeats Lloyd's two steps until nothing moves. A centre without rows
    moves to the row that is farthest from its own. Memory beyond one copy of the rows is bounded.

    Args:
        features: float `[n, D]`.
        k: K, 1 to n.
        spherical: Cluster by cosine: rows and centres are unit vectors.
        restarts: Runs, each from other first centres.
        seed: Of the first centres.
        backend: What finds the nearest centres; see `choose_backend`.
        device: Where to compute.
        max_iterations: Of one run.
        chunk_elements: Distances held at once.
        progress: Called with the runs done and their number.

    Raises:
        ValueError: K is not 1 to n, or a number of runs or iterations is below 1.
        WeightsError: A feature is not finite.
        UsageError: faiss is asked for and cannot be used.

    Source:
        Lloyd, IEEE Trans. Inf. Theory 28 (1982); Arthur and Vassilvitskii, SODA 2007, with several candidates per
        centre as in its section 5; spherical: Dhillon and Modha, Machine Learning 42 (2001).
    """
    if not 1 <= k <= len(features) or restarts < 1 or max_iterations < 1:
        raise ValueError(f"{k} clusters of {len(features)} rows, {restarts} runs, {max_iterations} iterations")
    device = torch.device(device)
    chosen = choose_backend(backend, device)
    elements = chunk_elements or _CHUNK_ELEMENTS.get(device.type, _CHUNK_ELEMENTS["cpu"])
    with exact_float32(device):
        step = max(1, min(_CHUNK_ROWS, elements // max(k, features.shape[1])))
        rows = _prepared(features, device, spherical, chosen, step)
        runs = []
        for restart in range(restarts):
            first = _first_centers(rows, k, np.random.default_rng((seed, restart)))
            runs.append(_numbered(_lloyd(rows, first, max_iterations), k))
            if progress is not None:
                progress(restart + 1, restarts)
        best = min(runs, key=lambda run: run.inertia)  # the first of equals
        squared = _squared(rows, best)
    return KMeans(
        assignments=best.assigned.cpu().numpy(),
        centers=(best.centers + rows.mean).cpu(),
        squared=squared,
        inertia=best.inertia,
        inertias=tuple(run.inertia for run in runs),
        runs=tuple(run.assigned.cpu().numpy() for run in runs),
        iterations=best.iterations,
        converged=best.converged,
        backend=chosen,
    )


def _prepared(
    features: Tensor, device: torch.device, spherical: bool, backend: Literal["torch", "faiss"], step: int
) -> _Rows:
    """A copy of the rows on `device`, unit vectors if asked, less their mean."""
    values = torch.empty(features.shape, dtype=torch.float32, device=device)
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=device)
    rows = _Rows(values, total, spherical, backend, step)
    for chunk in rows.chunks():
        part = features[chunk].to(device, torch.float32)
        if not bool(torch.isfinite(part).all()):
            raise WeightsError(
                "The network gives features that are not finite.", "Check the weights: the training may have diverged."
            )
        values[chunk] = functional.normalize(part, dim=1) if spherical else part
        total += values[chunk].sum(dim=0)
    mean = (total / len(values)).float()
    for chunk in rows.chunks():
        values[chunk] -= mean
    return _Rows(values, mean, spherical, backend, step)


def _first_centers(rows: _Rows, k: int, rng: np.random.Generator) -> Tensor:
    """Greedy k-means++ on a sample: each centre is the best of some rows drawn by squared distance."""
    size = min(len(rows.values), max(_SEED_ROWS, _SEED_ROWS_PER_CENTER * k))
    order = torch.from_numpy(rng.permutation(len(rows.values))[:size]).to(rows.values.device)
    sample = rows.values if size == len(rows.values) else rows.values[order]
    chosen = [int(rng.integers(size))]
    lengths = torch.linalg.vector_norm(sample, dim=1).square()
    closest = squared_distances(sample, sample[chosen], lengths)[:, 0]
    num_candidates = 2 + int(np.log(k))
    for _ in range(1, k):
        # summed on the CPU in float64: a GPU's running sum differs from call to call
        upto = np.cumsum(closest.double().cpu().numpy())
        draws = rng.random(num_candidates) * upto[-1]
        candidates = np.searchsorted(upto, draws, side="right").clip(max=size - 1)
        if upto[-1] <= 0:  # fewer different rows than centres
            candidates = rng.integers(size, size=num_candidates)
        places = torch.from_numpy(candidates).to(sample.device)
        nearer = torch.minimum(closest.unsqueeze(1), squared_distances(sample, sample[places], lengths))
        winner = int(nearer.sum(dim=0, dtype=torch.float64).argmin())
        chosen.append(int(candidates[winner]))
        closest = nearer[:, winner]
    return sample[chosen].clone()


def _lloyd(rows: _Rows, centers: Tensor, max_iterations: int) -> _Run:
    assigned, squared = _nearest(rows, centers)
    total, converged, iterations = float(squared.sum(dtype=torch.float64)), False, 0
    while not converged and iterations < max_iterations:
        iterations += 1
        centers = _means(rows, _refilled(rows, assigned, squared, len(centers)), centers)
        before, total_before = assigned, total
        assigned, squared = _nearest(rows, centers)
        total = float(squared.sum(dtype=torch.float64))
        converged = torch.equal(assigned, before) or total >= total_before * (1 - _IMPROVEMENT)
    return _Run(assigned, centers, _inertia(rows, centers, assigned), iterations, converged)


def _nearest(rows: _Rows, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Number of the nearest centre int64 `[n]`, and its squared distance `[n]`."""
    search = center_search(centers, rows.backend)
    assigned = torch.empty(len(rows.values), dtype=torch.int64, device=centers.device)
    squared = torch.empty(len(rows.values), device=centers.device)
    for chunk in rows.chunks():
        squared[chunk], assigned[chunk] = search(rows.values[chunk])
    return assigned, squared


def _refilled(rows: _Rows, assigned: Tensor, squared: Tensor, k: int) -> Tensor:
    """The assignments, where each empty cluster is given one of the rows farthest from their centres."""
    empty = (torch.bincount(assigned, minlength=k) == 0).nonzero().squeeze(1)
    if len(empty) == 0:
        return assigned
    farthest, order = squared.sort(descending=True, stable=True)
    apart = farthest[: len(empty)] > _SAME * rows.values.square().mean() * rows.values.shape[1]
    moved = order[: len(empty)][apart]
    assigned = assigned.clone()
    assigned[moved] = empty[: len(moved)]
    return assigned


def _means(rows: _Rows, assigned: Tensor, centers: Tensor) -> Tensor:
    """The mean row of each cluster, of length 1 for spherical ones; the centre of an empty one stays where it is."""
    k = len(centers)
    sums = torch.zeros(centers.shape, dtype=torch.float64, device=centers.device)
    for chunk in rows.chunks():
        sums += _chunk_sums(rows.values[chunk], assigned[chunk], k)
    counts = torch.bincount(assigned, minlength=k).unsqueeze(1)
    means = (sums / counts.clamp(min=1)).float()
    if rows.spherical:
        means = functional.normalize(means + rows.mean, dim=1) - rows.mean
    return torch.where(counts > 0, means, centers)


def _chunk_sums(values: Tensor, assigned: Tensor, k: int) -> Tensor:
    """Sum of the rows of each cluster, `[K, D]`."""
    if values.device.type == "cpu":
        return torch.zeros(k, values.shape[1]).index_add_(0, assigned, values)
    # on a GPU `index_add_` adds in an order of its own in every call; a product does not
    return functional.one_hot(assigned, k).T.to(values.dtype) @ values


def _inertia(rows: _Rows, centers: Tensor, assigned: Tensor) -> float:
    parts = (rows.values[chunk] - centers[assigned[chunk]] for chunk in rows.chunks())
    return float(sum(part.double().square().sum() for part in parts))


def _squared(rows: _Rows, run: _Run) -> Tensor:
    """Squared distance of each row to its centre, `[n]` on the CPU."""
    parts = [(rows.values[chunk] - run.centers[run.assigned[chunk]]).square().sum(dim=1) for chunk in rows.chunks()]
    return torch.cat(parts).cpu()


def _numbered(run: _Run, k: int) -> _Run:
    """The same clusters, the largest first."""
    order = torch.bincount(run.assigned, minlength=k).argsort(descending=True, stable=True)
    number = torch.empty_like(order)
    number[order] = torch.arange(k, device=order.device)
    return _Run(number[run.assigned], run.centers[order], run.inertia, run.iterations, run.converged)
