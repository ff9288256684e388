"""Times the steps of a plan: the very updates of a run, without what a run does between them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibot_cli import distributed
from ibot_cli.core.arithmetic import float32_products
from ibot_cli.data.loader import StepData
from ibot_cli.data.prefetch import CudaLanes, Wait
from ibot_cli.errors import TrainingError
from ibot_cli.quantities import counted
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.train.bench.operations import count_operations
from ibot_cli.train.bench.peak import gemm_rate
from ibot_cli.train.bench.setup import Bench
from ibot_cli.train.loop import Loop
from ibot_cli.train.machine import peak_memory, reset_peak_memory
from ibot_cli.train.out_of_memory import OutOfMemory, is_out_of_memory
from ibot_cli.train.plan import known
from ibot_cli.train.reporter import Reporter

POOL = 2  # steps whose synthetic views are kept: as many as a run has at once, the one in use and the next
LAYERS = 12  # layers whose products are tried for the best rate


@dataclass(frozen=True, kw_only=True)
class Timings:
    """What was measured in one process.

    Attributes:
        seconds: Of each timed step, waiting for images included.
        waited: Of each timed step, waiting for images.
        loading: Of each step of the loader by itself; None for synthetic views.
        peak_bytes: Largest memory: of the process on a CPU, allocated on a GPU.
        operations: What a step of this process needs, see `ibot_cli.train.bench.operations`.
        peak_rate: Operations per second of the fastest product.
        compiled: Whether the blocks were compiled; without, where the compiler failed.
    """

    seconds: list[float]
    waited: list[float]
    loading: list[float] | None
    peak_bytes: int
    operations: int
    peak_rate: float
    compiled: bool = False


def measure(bench: Bench, *, steps: int, warmup: int, reporter: Reporter) -> Timings:
    """Runs `warmup` and then `steps` updates from the middle of the run on, where nothing is frozen any more.

    Args:
        bench: What to time.
        steps: Updates that count.
        warmup: Updates before them that do not; more where `warmup_of` says so.
        reporter: Told what is being done.

    Raises:
        TrainingError: There is not enough memory.
        DataError: Images cannot be read.
    """
    runtime = bench.plan.config.runtime
    if torch.get_num_threads() != known(runtime.threads):
        torch.set_num_threads(known(runtime.threads))
    try:
        with (
            float32_products(tf32=runtime.precision == "tf32"),
            tempfile.TemporaryDirectory(prefix="ibot-bench-") as place,
        ):
            return _measure(bench, RunDirectory(Path(place)), steps, warmup, reporter)
    except (RuntimeError, MemoryError, OutOfMemory) as error:
        if not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
            raise
        raise _too_large(bench) from error


def _too_large(bench: Bench) -> TrainingError:
    plan = bench.plan
    kept = plan.config.runtime.checkpointing == "none"
    return TrainingError(
        f"A step of {bench.name} with {counted(plan.micro_batch_size, 'image')} at once does not fit into the memory "
        f"of {plan.device}.",
        f"Lower --batch-size (it is {plan.schedule.batch_size}) or set train.micro_batch_size"
        f"{' or runtime.checkpointing=blocks' if kept else ''}.",
    )


class Clock:
    """Times work without waiting for the device in between: the host must stay ahead of it, as in a run.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._lane = CudaLanes(device) if device.type == "cuda" else None
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Now; on a GPU when all work so far is done."""
        self._marks.append(time.perf_counter() if self._lane is None else self._lane.mark())

    def seconds(self) -> list[float]:
        """Between one mark and the next."""
        if self._lane is None:
            return [after - before for before, after in pairwise(self._marks)]
        self._marks[-1].synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in pairwise(self._marks)]


def _measure(bench: Bench, run: RunDirectory, steps: int, warmup: int, reporter: Reporter) -> Timings:
    plan = bench.plan
    loop = Loop(plan, bench.source, run, reporter, step=plan.schedule.total_steps // 2)
    loading, warmup = None, warmup_of(loop, warmup)
    if not bench.synthetic:
        reporter.say(f"The loader by itself, {counted(warmup, 'step')} to warm up and {steps:,} that count ...")
        loading = _passed(loop.loader.steps(loop.step, loop.step + warmup + steps), plan.device, lambda data: None)
    reporter.say(f"Training, {counted(warmup, 'step')} to warm up and {steps:,} that count ...")
    waits: list[Wait] = []
    masked: list[Tensor] = []

    def update(data: StepData) -> None:
        loop.update(data)
        waits.append(data.wait)
        masked.extend(batch.mask.sum() for batch in data.micro)

    reset_peak_memory(plan.device)
    seconds = _passed(_views(bench, loop, warmup + steps), plan.device, update)
    peak_bytes = peak_memory(plan.device)
    reporter.say("The fastest matrix product ...")
    average = sum(count.item() for count in masked) / len(masked)
    operations = count_operations(plan.config, plan.micro_batch_size, round(average))
    return Timings(
        seconds=seconds[warmup:],
        waited=[wait.seconds() for wait in waits[warmup:]],
        loading=None if loading is None else loading[warmup:],
        peak_bytes=peak_bytes,
        operations=operations.total * plan.micro_batches,
        peak_rate=gemm_rate(operations.largest(LAYERS), plan.dtype or torch.float32, plan.device),
        compiled=loop.compilation.active,
    )


def warmup_of(loop: Loop, asked: int) -> int:
    """Steps before those that count: at least as many as take longer than all later ones.

    Several processes make the passes of their first steps twice, and the compiler sees a size of masked patches with
    the synthetic views that have it.

    Args:
        loop: About to make its first step.
        asked: What was asked for.
    """
    tried = loop.rehearsals.left if distributed.world() > 1 else 0
    return max(asked, tried, POOL if loop.compilation.active else 0)


def _views(bench: Bench, loop: Loop, count: int) -> Generator[StepData, None, None]:
    """What the updates are made of: the loader's steps, or for synthetic views the same few again and again."""
    if bench.synthetic:
        yield from islice(cycle(list(loop.loader.steps(loop.step, loop.step + POOL))), count)
    else:
        with closing(loop.loader.steps(loop.step, loop.step + count)) as taken:
            yield from taken


def _passed(views: Generator[StepData], device: torch.device, use: Callable[[StepData], None]) -> list[float]:
    """Seconds of each step, from the end of the one before to the end of its use."""
    clock = Clock(device)
    with closing(views):
        clock.mark()
        for data in views:
            use(data)
            clock.mark()
    return clock.seconds()
