"""The nearest centre of each row, by torch or by faiss.

Shapes: m rows, K centres, D features. Distances are squared and Euclidean; between unit vectors they are 2 - 2 cosine.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from ibot_cli.errors import UsageError

Backend = Literal["auto", "torch", "faiss"]
BACKENDS: tuple[Backend, ...] = ("auto", "torch", "faiss")
_GPU_SCRATCH = 2**28  # bytes

Search = Callable[[Tensor], tuple[Tensor, Tensor]]


def choose_backend(asked: Backend, device: torch.device) -> Literal["torch", "faiss"]:
    """Which library searches.

    `auto` is faiss where it works on a GPU and the device is one, since it never holds all distances at once; and
    torch elsewhere, whose matrix products took a quarter of the time of faiss on the CPUs that were measured.

    Args:
        asked: What the user wants.
        device: Where to compute.

    Raises:
        UsageError: faiss is asked for and cannot be used.
    """
    if asked == "torch":
        return "torch"
    if asked == "auto":
        return "faiss" if device.type == "cuda" and _works_on(device) else "torch"
    if _faiss() is None:
        raise UsageError("faiss is not installed, or does not fit this machine.", "Use --backend torch.")
    if device.type == "cuda" and not _works_on(device):
        raise UsageError("The installed faiss does not work on this GPU.", "Use --backend torch, or --device cpu.")
    return "faiss"


def center_search(centers: Tensor, backend: Literal["torch", "faiss"]) -> Search:
    """From rows `[m, D]` to squared distance `[m]` and number `[m]` of the nearest of `centers` `[K, D]`.

    Both are float32 on one device; the first of several nearest ones counts.
    """
    return _faiss_search(centers) if backend == "faiss" else _torch_search(centers)


def squared_distances(rows: Tensor, centers: Tensor, lengths: Tensor) -> Tensor:
    """Squared distances `[m, K]`, never negative.

    Args:
        rows: float32 `[m, D]`.
        centers: float32 `[K, D]`.
        lengths: Squared lengths of the rows, `[m]`.
    """
    crossed = torch.addmm(centers.square().sum(dim=1), rows, centers.T, alpha=-2)
    return crossed.add_(lengths.unsqueeze(1)).clamp_(min=0)


def _torch_search(centers: Tensor) -> Search:
    lengths = centers.square().sum(dim=1)

    def search(rows: Tensor) -> tuple[Tensor, Tensor]:
        # the rows' own lengths do not change which centre is nearest; adding them to K columns would only cost time
        value, index = torch.addmm(lengths, rows, centers.T, alpha=-2).min(dim=1)
        return value.add_(rows.square().sum(dim=1)).clamp_(min=0), index

    return search


def _faiss_search(centers: Tensor) -> Search:
    faiss = _faiss()
    importlib.import_module("faiss.contrib.torch_utils")  # teaches the indices to take tensors, also those on a GPU
    index = _gpu_index(faiss, centers) if centers.device.type == "cuda" else faiss.IndexFlatL2(centers.shape[1])
    with _on(centers.device):
        index.add(centers.contiguous())

    def search(rows: Tensor) -> tuple[Tensor, Tensor]:
        with _on(centers.device):  # faiss follows the current stream of the current GPU
            squared, found = index.search(rows.contiguous(), 1)
        return squared[:, 0].clamp(min=0), found[:, 0]

    return search


def _gpu_index(faiss: Any, centers: Tensor) -> Any:
    settings = faiss.GpuIndexFlatConfig()
    settings.device = torch.cuda.current_device() if centers.device.index is None else centers.device.index
    resources = _gpu_resources(settings.device)
    index = faiss.GpuIndexFlatL2(resources, centers.shape[1], settings)
    index.resources = resources  # the index does not keep it alive by itself
    return index


@cache
def _gpu_resources(number: int) -> Any:
    """Scratch memory on one GPU, kept because every iteration makes a new index."""
    resources = _faiss().StandardGpuResources()
    resources.setTempMemory(_GPU_SCRATCH)
    return resources


def _on(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _faiss() -> Any:
    """The module, or None where it is missing or does not fit this machine."""
    try:
        import faiss
    except Exception:  # a faiss built for another NumPy or without its libraries fails with all kinds of errors
        return None
    return faiss


@cache
def _works_on(device: torch.device) -> bool:
    """Whether faiss sees GPUs and finds the nearest of two centres on this one."""
    faiss = _faiss()
    if faiss is None or not hasattr(faiss, "GpuIndexFlatL2") or faiss.get_num_gpus() == 0:
        return False
    try:
        centers = torch.eye(2, device=device)
        return _faiss_search(centers)(centers.flip(0))[1].tolist() == [1, 0]
    except Exception:  # built for another CUDA or another kind of GPU, it fails with all kinds of errors
        return False
