"""The only file that touches `torch.distributed`. In a single process every function is the identity.

Processes are started by `torchrun`, which sets RANK, WORLD_SIZE and LOCAL_RANK.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_alone = False
# Long enough for one process to evaluate while the others wait for it.
TIMEOUT = timedelta(hours=2)


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's number on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def process_group() -> Iterator[None]:
    """Connects the processes for the duration: gloo for CPU tensors, NCCL for those on a GPU."""
    if world() == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """For the duration this process exchanges nothing: every function acts as in a single process.

    For a computation that a process may break off, while the others would wait for its share of a sum.
    """
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def _connected() -> bool:
    return dist.is_initialized() and not _alone


class _Sum(torch.autograd.Function):
    """Sum over processes whose gradient is summed too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over all processes; differentiable."""
    if not _connected():
        return tensor
    total: Tensor = _Sum.apply(tensor)
    return total


def average_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its mean over all processes, with one exchange per data type."""
    if not _connected():
        return
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        group = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.reshape(-1) for t in group])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for target, part in zip(group, flat.split([t.numel() for t in group]), strict=True):
            target.copy_(part.view_as(target))


def gather_columns(tensor: Tensor) -> Tensor:
    """`[T, B]` of every process side by side, `[T, B * world]`, in the order of the processes."""
    if not _connected():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts, dim=1)


def agree(value: Any) -> Any:
    """The value that process 0 has; small picklable objects only."""
    if not _connected():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def merged(entries: dict[str, str]) -> dict[str, str]:
    """The union of every process's entries; the first process that has a key decides its value."""
    if not _connected():
        return entries
    parts: list[dict[str, str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, entries)
    return {key: value for part in reversed(parts) if part for key, value in part.items()}


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process."""
    if not _connected():
        return flag
    total = torch.tensor(float(flag), device=device)
    dist.all_reduce(total)
    return bool(total > 0)
