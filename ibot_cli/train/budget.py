"""How many images go through the networks at once, so that a step fits into memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ibot_cli import distributed
from ibot_cli.config.schema import Config
from ibot_cli.core.arithmetic import AUTOCAST
from ibot_cli.errors import UsageError
from ibot_cli.train.choices import Choice
from ibot_cli.train.machine import available_memory, resident_memory
from ibot_cli.train.memory import MemoryEstimate, estimate_step

# What the counted tensors leave out: alignment, freed blocks that are not returned, the libraries' own buffers.
OVERHEAD = {"cpu": 1.25, "cuda": 1.1}
# Share of the free memory that a step may plan for.
BUDGET = {"cpu": 0.7, "cuda": 0.9}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process.

    Attributes:
        base: In use before the networks are built: libraries and data (CPU only).
        step: Estimated peak of the tensors, with the allocator's overhead.
        available: What the device had left when the plan was made.
    """

    base: int
    step: int
    available: int

    @property
    def peak(self) -> int:
        """Estimated peak of the process (CPU) or of the allocated device memory (CUDA)."""
        return self.base + self.step


def decide_micro_batch(
    config: Config, device: torch.device, rank_batch: int, made: dict[str, Choice], want_memory: bool
) -> tuple[Config, Memory | None]:
    """The largest micro-batch that fits into memory and divides the process's share of the batch.

    Args:
        config: Resolved; `train.micro_batch_size` may be open.
        device: Where the networks run.
        rank_batch: Images of one process per update.
        made: Choices with reasons; this one is added.
        want_memory: Whether to estimate the memory of a given micro-batch too.

    Returns:
        The configuration with the micro-batch, and the estimate or None.

    Raises:
        UsageError: The given micro-batch does not divide the share.
    """
    given = config.train.micro_batch_size
    if given is not None and rank_batch % given:
        raise UsageError(
            f"train.micro_batch_size = {given} does not divide the {rank_batch} images of a process per update.",
            f"Choose one of {', '.join(map(str, _divisors(rank_batch)))}, or auto.",
        )
    if given is not None:
        return config, _memory(config, device, given, rank_batch // given) if want_memory else None
    memory = _memory(config, device, rank_batch, 1)
    micro = rank_batch
    if memory.step > memory.available * BUDGET[device.type]:
        micro = fitting_share(
            rank_batch,
            lambda images: _memory(config, device, images, 2).step,
            memory.available * BUDGET[device.type],
        )
    micro = distributed.agree(micro)
    made["train.micro_batch_size"] = (
        micro,
        f"the largest share of {rank_batch} images per process that fits into {memory.available / 2**30:.1f} GiB"
        if micro < rank_batch
        else f"all {rank_batch} images of a process fit into {memory.available / 2**30:.1f} GiB",
    )
    config = replace(config, train=replace(config.train, micro_batch_size=micro))
    if micro < rank_batch:
        memory = _memory(config, device, micro, rank_batch // micro)
    return config, memory


def shortage(memory: Memory | None, micro: int | None, checkpointing: str) -> list[str]:
    """A warning where the estimate, for so many images at once, is above what the device has left."""
    if memory is None or memory.step <= memory.available:
        return []
    ways = [
        *(["set runtime.checkpointing=blocks"] if checkpointing == "none" else []),
        f"lower train.micro_batch_size = {micro}" if micro != 1 else "choose a smaller model.arch or fewer views",
    ]
    return [
        f"A step needs about {memory.step / 2**30:.1f} GiB, but only {memory.available / 2**30:.1f} GiB are left on "
        f"the device. {', or '.join(ways).capitalize()}."
    ]


def fitting_share(rank_batch: int, step_bytes: Callable[[int], int], available: float, *, divides: bool = True) -> int:
    """The largest part of a process's batch that fits; memory is linear in the images, so two estimates tell.

    Args:
        rank_batch: Images of one process per update.
        step_bytes: Bytes of a step with so many images at once.
        available: Bytes that it may take.
        divides: Whether the part has to divide the whole.
    """
    first = step_bytes(1)
    slope = max(step_bytes(3) - first, 2) / 2
    fitting = 1 + int(max(available - first, 0) / slope)
    return max(d for d in _divisors(rank_batch) if d <= fitting) if divides else min(fitting, rank_batch)


def _memory(config: Config, device: torch.device, micro: int, micro_batches: int) -> Memory:
    estimate: MemoryEstimate = estimate_step(config, micro, AUTOCAST[config.runtime.precision or "fp32"], micro_batches)
    return Memory(
        base=resident_memory() if device.type == "cpu" else 0,
        step=int(estimate.peak * OVERHEAD[device.type]),
        available=available_memory(device),
    )


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
