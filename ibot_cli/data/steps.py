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
class Taken(Generic[M]):
    """The micro-batches of one process for one step.

    Attributes:
        step: Number of the step in the run.
        keys: (sample, visit) of each image.
        used: int64 `[b]`, the images really seen.
        bad: Path and reason of each unreadable file that the step met.
        micro: What the assembler made, finished on the device, in order.
        wait: How long the training waited for them.
    """

    step: int
    keys: list[Key]
    used: np.ndarray
    bad: list[tuple[str, str]]
    micro: list[M]
    wait: Wait

    @property
    def samples(self) -> np.ndarray:
        """int64 `[b]`, the samples of this process."""
        return np.array([sample for sample, _ in self.keys], dtype=np.int64)


def in_steps(
    plan: KeyPlan,
    assembler: Assembling[P],
    finish: Callable[[P, int, int], M],
    *,
    start: int,
    stop: int,
    workers: int,
    device: torch.device,
) -> Generator[Taken[M], None, None]:
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


def _ahead(taken: Iterator[Taken[M]], device: torch.device) -> Iterator[Taken[M]]:
    for step, wait in ahead(taken, _tensors, CudaLanes(device)):
        yield replace(step, wait=wait)


def _taken(
    plan: KeyPlan, prepared: Iterator[P], finish: Callable[[P, int, int], M], start: int, stop: int
) -> Generator[Taken[M], None, None]:
    for step, keys in plan.steps(start, stop):
        first, waited = plan.position.start, 0.0
        micro: list[M] = []
        used: list[np.ndarray] = []
        bad: list[tuple[str, str]] = []
        while len(micro) * plan.micro_batch_size < len(keys):
            began = time.perf_counter()
            part = next(prepared)
            waited += time.perf_counter() - began
            micro.append(finish(part, step, first))  # before the next one is taken, which may overwrite this one
            used.append(part.used)
            bad += part.bad
            first += len(part.used)
        yield Taken(step=step, keys=keys, used=np.concatenate(used), bad=bad, micro=micro, wait=HostWait(waited))


def _tensors(taken: Taken[M]) -> Iterator[Tensor]:
    """What was made on the device for a step."""
    for batch in taken.micro:
        yield from (value for value in vars(batch).values() if isinstance(value, Tensor))
