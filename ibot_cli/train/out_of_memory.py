"""Passes that do not fit into memory: noticed, the same in every process, and done again with fewer images at once."""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import yaml

from ibot_cli import distributed
from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.load import from_mapping, to_yaml
from ibot_cli.config.schema import Config
from ibot_cli.errors import TrainingError
from ibot_cli.runs.directory import RunDirectory

# How the allocators and libraries say it where there is no class of its own: on the CPU, cuBLAS, cuDNN, oneDNN.
_SIGNS = (
    "DefaultCPUAllocator",
    "ALLOC_FAILED",
    "out of memory",
    "could not create a primitive",
    "could not create a memory",
)
C = TypeVar("C", Config, FinetuneConfig)
T = TypeVar("T")


class OutOfMemory(TrainingError):
    """The passes of a step do not fit into memory; nothing but gradients was changed.

    Attributes:
        everywhere: Whether every process knows it, so that all may go on together.
    """

    def __init__(self, *, everywhere: bool) -> None:
        super().__init__(
            "The images of a forward pass do not fit into memory.",
            "Lower train.micro_batch_size, or set runtime.checkpointing=blocks; a run goes on with --resume.",
        )
        self.everywhere = everywhere


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextmanager
def within_memory() -> Iterator[None]:
    """Forward and backward passes, which may be done again.

    Raises:
        OutOfMemory: An allocation failed.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(everywhere=distributed.world() == 1) from error


@contextmanager
def explained_shortage() -> Iterator[None]:
    """A lack of memory that fewer images at once would not mend ends with what would.

    Raises:
        TrainingError: An allocation failed.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"There is not enough memory beside the forward and backward passes: {str(error).splitlines()[0]}",
            "Make room on the device, or start a new run with a smaller model.arch, head.prototypes or "
            "train.batch_size: all views of an update are there at once. Checkpoints are intact.",
        ) from error


def until_too_large(steps: Generator[T, None, None], update: Callable[[T], None], after: Callable[[], None]) -> bool:
    """Goes through the steps.

    Args:
        steps: Their data; closed at the end, so that loader processes end too.
        update: Makes an update of a step's data.
        after: Called after each update.

    Returns:
        False when the passes of an update did not fit and every process knows it, True after the last step.

    Raises:
        OutOfMemory: They did not fit in this process only; the others wait for it.
    """
    with closing(steps):
        for data in steps:
            try:
                update(data)
            except OutOfMemory as error:
                if not error.everywhere:
                    raise
                return False
            after()
    return True


@dataclass
class Rehearsals:
    """The passes of the first steps are tried before they count, where there are several processes.

    A process that broke off in the middle of a step would leave the others waiting for its share of a sum. So each
    tries its passes without the others; then all know whether all can.

    Attributes:
        device: Where processes agree.
        left: Steps that are still tried: the first, and the next, which has the optimiser's moments beside it.
    """

    device: torch.device
    left: int = 2

    def try_out(self, passes: Callable[[], object], forget: Callable[[], None]) -> None:
        """Tries a step's passes while it is one of the first; in a single process the step itself is the trial.

        Args:
            passes: The step up to its gradients.
            forget: Drops what they leave.

        Raises:
            OutOfMemory: They do not fit in some process; raised in every one.
        """
        if distributed.world() == 1 or self.left == 0:
            return
        self.left -= 1
        lacking = not fits(passes)
        forget()
        if distributed.any_rank(lacking, self.device):
            raise OutOfMemory(everywhere=True)


def fits(passes: Callable[[], object]) -> bool:
    """Whether passes, done without the other processes, find the memory that they need."""
    try:
        with distributed.alone():
            passes()
    except OutOfMemory:
        return False
    return True


def halved(micro: int, allowed: Callable[[int], bool]) -> int | None:
    """The next smaller micro-batch: the largest of at most half the size that is allowed; None where there is none."""
    return next((size for size in range(micro // 2, 0, -1) if allowed(size)), None)


def keep_micro_batch(run: RunDirectory, kind: type[C], micro: int) -> None:
    """Writes a run's new micro-batch into its configuration, in which all else stays as it is."""
    stored = from_mapping(yaml.safe_load(run.config.read_text()), str(run.config), kind)
    run.write_config(to_yaml(replace(stored, train=replace(stored.train, micro_batch_size=micro))))


def release(device: torch.device) -> None:
    """Gives back what broken-off passes held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif platform.libc_ver()[0] == "glibc":
        # the blocks of the thread that runs backward passes would stay that thread's otherwise
        ctypes.CDLL(None).malloc_trim(0)


def composed_terms(config: Config | FinetuneConfig) -> list[str]:
    """What depends on which images go through the networks together; of a fine-tuning nothing does."""
    if isinstance(config, FinetuneConfig):
        return []
    return [
        *(["Sinkhorn"] if config.objective.balance == "sinkhorn" else []),
        *(["KoLeo"] if config.objective.koleo_weight > 0 else []),
        *(["batch normalisation"] if config.head.norm == "batch" else []),
    ]


def notice(step: int, before: int, config: Config | FinetuneConfig) -> str:
    """What the user is told.

    Args:
        step: Updates done.
        before: The micro-batch that did not fit.
        config: With the one that the run goes on with.
    """
    composed = " and ".join(composed_terms(config))
    text = (
        f"Step {step + 1:,} did not fit into memory: train.micro_batch_size was {before} and is "
        f"{config.train.micro_batch_size} from now on, also in config.yaml; an update takes more passes. "
    )
    if not composed:
        return text + "Losses and gradients stay the same up to rounding."
    return (
        f"{text}What depends on the images of a pass changes with it: {composed}. "
        "All else stays the same up to rounding."
    )


def nothing_smaller(step: int, micro: int, checkpointing: str, why: str = "") -> TrainingError:
    """The end: one image at a time, or the fewest that go together, is still too much.

    Args:
        step: Updates done.
        micro: The smallest micro-batch.
        checkpointing: Of the configuration.
        why: Why it cannot be smaller, where that is not plain.
    """
    first = "runtime.checkpointing=blocks, " if checkpointing == "none" else ""
    return TrainingError(
        f"Step {step + 1:,} does not fit into memory, even with train.micro_batch_size = {micro}{why}. "
        "Updates and checkpoints before it are intact.",
        f"Set {first}runtime.precision=bf16, fewer or smaller views, or a smaller model.arch.",
    )
