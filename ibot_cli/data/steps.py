"""From the micro-batches of loader processes to the steps of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ibot_cli.data.keys import KeyPlan
from ibot_cli.data.prefetch import CudaLanes, HostWait, Wait, ahead
from ibot_cli.data.workers import Assembling, Key, in_order


class Assembled(Protocol):
    """What an assembler makes of the keys of a micro-batch."""

    @property
    def used(self) -> np.ndarray:
        """int64 `[b]`, the images really seen: unreadable ones are replaced."""

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Path and reason of each unreadable file that was met."""


P = TypeVar("P", bound=Assembled)
M = TypeVar("M")


@dataclass(frozen=True, kw_only=True)
class Taken(Generic[P, M]):
    """The micro-batches of one process for one step.

    Attributes:
        step: Number of the step in the run.
        keys: (sample, visit) of each image.
        parts: What the assembler made, in order.
        micro: The same, finished on the device.
        wait: How long the training waited for them.
    """

    step: int
    keys: list[Key]
    parts: list[P]
    micro: list[M]
    wait: Wait

    @property
    def samples(self) -> np.ndarray:
        """int64 `[b]`, the samples of this process."""
        return np.array([sample for sample, _ in self.keys], dtype=np.int64)

    @property
    def used(self) -> np.ndarray:
        """int64 `[b]`, the images really seen."""
        return np.concatenate([part.used for part in self.parts])

    @property
    def bad(self) -> Iterator[tuple[str, str]]:
        """Path and reason of each unreadable file that the step met."""
        return (entry for part in self.parts for entry in part.bad)


def in_steps(
    plan: KeyPlan,
    assembler: Assembling[P],
    finish: Callable[[P, int, int], M],
    *,
    start: int,
    stop: int,
    workers: int,
    device: torch.device,
) -> Generator[Taken[P, M], None, None]:
    """The steps `start` (inclusive) to `stop` (exclusive), over epoch boundaries.

    Call it once for the rest of a run: the workers live as long as the iterator, and closing it ends them.

    Args:
        plan: Which images make which step.
        assembler: Makes the micro-batches, in the workers.
        finish: Makes them ready in this process, from the micro-batch, the step and the place of its first image in
            the global batch.
        start: First step.
        stop: Step before which it ends.
        workers: Loader processes; 0 loads in this process.
        device: Where the batches go; for CUDA they are pinned, and the next step's are made while one is used.

    Raises:
        DataError: As `assembler`, or a loader process failed.
    """
    micro_keys = plan.micro_batches(start, stop)
    prepared = in_order(assembler, micro_keys, workers=workers, pin_memory=device.type == "cuda")
    taken = _taken(plan, prepared, finish, start, stop)
    try:
        yield from _ahead(taken, device) if device.type == "cuda" else taken
    finally:
        taken.close()
        prepared.close()


def _ahead(taken: Iterator[Taken[P, M]], device: torch.device) -> Iterator[Taken[P, M]]:
    for step, wait in ahead(taken, _tensors, CudaLanes(device)):
        yield replace(step, wait=wait)


def _taken(
    plan: KeyPlan, prepared: Iterator[P], finish: Callable[[P, int, int], M], start: int, stop: int
) -> Generator[Taken[P, M], None, None]:
    for step, keys in plan.steps(start, stop):
        began = time.perf_counter()
        parts = [next(prepared) for _ in range(0, len(keys), plan.micro_batch_size)]
        wait = HostWait(time.perf_counter() - began)
        firsts = plan.position.start + np.cumsum([0, *(len(part.used) for part in parts[:-1])])
        micro = [finish(part, step, int(first)) for part, first in zip(parts, firsts, strict=True)]
        yield Taken(step=step, keys=keys, parts=parts, micro=micro, wait=wait)


def _tensors(taken: Taken[P, M]) -> Iterator[Tensor]:
    """What was made on the device for a step."""
    for batch in taken.micro:
        yield from (value for value in vars(batch).values() if isinstance(value, Tensor))
