"""Nearest neighbours by cosine: candidates in float32 from faiss or torch, their order settled in float64.

Shapes: N bank and M query rows, D features, k neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ibot_cli.errors import WeightsError
from ibot_cli.evaluate.cluster.center_search import Backend, choose_backend
from ibot_cli.evaluate.precision import exact_float32

_MARGIN = 8  # candidates beyond k, so that rounding in float32 seldom decides who is among the k
_TOLERANCE = 4e-6  # more than float32 rounding can move a cosine of a few thousand features
_QUERY_ROWS = 256
_CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**25}  # numbers held at once, beyond the bank itself
_FAISS_GPU_MOST = 2048  # neighbours that faiss can find on a GPU

Candidates = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def nearest_rows(
    bank: Tensor,
    queries: Tensor,
    k: int,
    *,
    exclude_self: bool = False,
    exclude: Tensor | None = None,
    device: torch.device | str = "cpu",
    backend: Backend = "auto",
    chunk_elements: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The k bank rows of largest cosine for each query, largest first; equal ones by smaller bank index.

    The similarities are those of float64 arithmetic rounded to float32, so the answer is the same with and without
    faiss, on a CPU and on a GPU. Memory beyond one normalised copy of the bank is bounded.

    Args:
        bank: float `[N, D]`, any scale; a row of zeros has similarity 0 to everything.
        queries: float `[M, D]`, any scale.
        k: Neighbours, at least 1; where fewer rows can be found, all of them are.
        exclude_self: The queries are the bank, row by row; no row finds itself.
        exclude: int64 `[M]`, a bank row that each query must not find, or -1; instead of `exclude_self`.
        device: Where to compute.
        backend: What finds the candidates; `auto` is faiss on a GPU where it works, else torch, which took a quarter
            of the time of faiss on the CPUs that were measured.
        chunk_elements: Numbers held at once.

    Returns:
        Similarity float32 and bank index int64, both `[M, min(k, N)]` (`N - 1` where a row is excluded), on the CPU.

    Raises:
        ValueError: The shapes do not fit, or k is below 1.
        WeightsError: A feature is not finite.
        UsageError: faiss is asked for and cannot be used.
    """
    if k < 1 or len(bank) == 0 or bank.shape[1:] != queries.shape[1:] or (exclude_self and len(bank) != len(queries)):
        raise ValueError(f"k = {k}, bank {tuple(bank.shape)}, queries {tuple(queries.shape)} do not fit")
    if exclude_self:
        exclude = torch.arange(len(queries))
    skips = exclude is not None and bool((exclude >= 0).any())
    width = min(k, len(bank) - skips)
    device = torch.device(device)
    elements = chunk_elements or _CHUNK_ELEMENTS.get(device.type, _CHUNK_ELEMENTS["cpu"])
    similarity, index = torch.empty(len(queries), width), torch.empty(len(queries), width, dtype=torch.int64)
    if width == 0:
        return similarity, index
    wanted = min(width + skips + _MARGIN, len(bank))
    with exact_float32(device):
        found_by = choose_backend(backend, device)
        if found_by == "torch" or (device.type == "cuda" and wanted > _FAISS_GPU_MOST):
            candidates = _torch_candidates(bank, device, elements)
        else:
            candidates = _faiss_candidates(bank, device)
        for start in range(0, len(queries), _QUERY_ROWS):
            rows = slice(start, min(start + _QUERY_ROWS, len(queries)))
            block = finite_rows(queries[rows]).to(device)
            skipped = None if exclude is None else exclude[rows].to(device)
            found = _settled(bank, block, skipped, width, *candidates(block, wanted), elements)
            similarity[rows], index[rows] = found[0].cpu(), found[1].cpu()
    return similarity, index


def finite_rows(rows: Tensor) -> Tensor:
    """The same rows.

    Raises:
        WeightsError: One of them is not finite.
    """
    if not bool(torch.isfinite(rows).all()):
        raise WeightsError(
            "The network gives features that are not finite.", "Check the weights: the training may have diverged."
        )
    return rows


def _settled(
    bank: Tensor,
    queries: Tensor,
    exclude: Tensor | None,
    width: int,
    rough: Tensor,
    index: Tensor,
    elements: int,
) -> tuple[Tensor, Tensor]:
    """The first `width` of the candidates by exact similarity; where they may be too few, the whole bank is asked.

    Args:
        rough: float32 `[m, c]`, similarities of the candidates, descending.
        index: int64 `[m, c]`.
    """
    pairs = max(1, elements // (index.shape[1] * bank.shape[1]))
    exact = torch.cat([_cosines(bank, part, rows) for part, rows in _together(pairs, queries, index)])
    found = _first(exact, index, exclude, width)
    if index.shape[1] == len(bank):
        return found
    unsure = (rough[:, -1] >= found[0][:, -1] - _TOLERANCE).nonzero().squeeze(1)
    if len(unsure):
        skipped = None if exclude is None else exclude[unsure]
        found[0][unsure], found[1][unsure] = _exhaustive(bank, queries[unsure], skipped, width, elements)
    return found


def _exhaustive(
    bank: Tensor, queries: Tensor, exclude: Tensor | None, width: int, elements: int
) -> tuple[Tensor, Tensor]:
    """What `_first` gives for all bank rows, a bounded number of them at a time."""
    unit = _unit(queries)
    best = torch.empty(len(queries), 0, device=queries.device)
    index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    step = max(1, elements // max(bank.shape[1], len(queries)))
    for start in range(0, len(bank), step):
        similarity = (unit @ _unit(bank[start : start + step].to(queries.device)).T).float()
        places = torch.arange(start, start + similarity.shape[1], device=queries.device).expand_as(similarity)
        joined = torch.cat([best, similarity], dim=1), torch.cat([index, places], dim=1)
        best, index = _first(*joined, exclude, width)
    return best, index


def _first(similarity: Tensor, index: Tensor, exclude: Tensor | None, width: int) -> tuple[Tensor, Tensor]:
    """The `width` largest similarities of each row with their bank index; ties by index."""
    if exclude is not None:
        similarity = similarity.masked_fill(index == exclude.unsqueeze(1), -torch.inf)
    index, order = index.sort(dim=1)
    similarity, ranked = similarity.gather(1, order).sort(dim=1, descending=True, stable=True)
    return similarity[:, :width], index.gather(1, ranked)[:, :width]


def _cosines(bank: Tensor, queries: Tensor, index: Tensor) -> Tensor:
    """Cosine of each query `[m, D]` and its candidates `[m, c]`, float32 from float64."""
    rows = _unit(bank[index.to(bank.device)].to(queries.device))
    return (rows * _unit(queries).unsqueeze(1)).sum(dim=2).float()


def _unit(rows: Tensor) -> Tensor:
    return functional.normalize(rows.double(), dim=-1)


def _together(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _torch_candidates(bank: Tensor, device: torch.device, elements: int) -> Candidates:
    """Exhaustive search with torch, over a normalised copy of the bank on `device`."""
    unit = torch.empty(bank.shape, dtype=torch.float32, device=device)
    for start, part in _unit_parts(bank):
        unit[start : start + len(part)] = part.to(device)

    def search(queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        queries = functional.normalize(queries.float(), dim=1)
        best = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64, device=device)
        step = max(1, elements // _QUERY_ROWS)
        for start in range(0, len(unit), step):
            similarity, index = _top(queries @ unit[start : start + step].T, count)
            similarity, order = _top(torch.cat([best[0], similarity], dim=1), count)
            best = similarity, torch.cat([best[1], index + start], dim=1).gather(1, order)
        return best

    return search


def _faiss_candidates(bank: Tensor, device: torch.device) -> Candidates:
    """Exhaustive search with faiss, which holds a normalised copy of the bank."""
    import faiss

    index = _gpu_index(faiss, bank.shape[1], device) if device.type == "cuda" else faiss.IndexFlatIP(bank.shape[1])
    for _, part in _unit_parts(bank):
        index.add(part.cpu().contiguous().numpy())

    def search(queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        rows = functional.normalize(queries.float(), dim=1).cpu().contiguous().numpy()
        similarity, found = index.search(rows, count)
        return torch.from_numpy(similarity).to(device), torch.from_numpy(found).to(device)

    return search


def _gpu_index(faiss: Any, size: int, device: torch.device) -> Any:
    """An exact float32 index on the GPU that torch calls `device`."""
    settings = faiss.GpuIndexFlatConfig()
    settings.device = torch.cuda.current_device() if device.index is None else device.index
    settings.useFloat16 = False
    resources = faiss.StandardGpuResources()
    index = faiss.GpuIndexFlatIP(resources, size, settings)
    index.resources = resources  # the index does not keep it alive by itself
    return index


def _unit_parts(bank: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The bank's rows, normalised, a bounded number at a time, with the place of the first."""
    step = max(1, _CHUNK_ELEMENTS["cpu"] // bank.shape[1])
    for start in range(0, len(bank), step):
        yield start, functional.normalize(finite_rows(bank[start : start + step]).float(), dim=1)


def _top(similarity: Tensor, count: int) -> tuple[Tensor, Tensor]:
    found = similarity.topk(min(count, similarity.shape[1]), dim=1)
    return found.values, found.indices
