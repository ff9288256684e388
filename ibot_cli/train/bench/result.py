"""What `ibot bench` found, as plain numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ibot_cli import __version__, distributed
from ibot_cli.config.load import flatten
from ibot_cli.runs.environment import cpu_name, describe
from ibot_cli.train.bench.measure import Timings
from ibot_cli.train.bench.setup import Bench
from ibot_cli.train.plan import known

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A median with the range of the middle half.

    Attributes:
        median: Half of the values are below.
        low: A quarter of them is below.
        high: A quarter of them is above.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """That of some values, at least one."""
        if len(values) == 1:
            return cls(median=values[0], low=values[0], high=values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median=median, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """How fast the steps of a configuration are.

    Attributes:
        name: The recipe.
        data: What was seen: a name of the images, or `synthetic views`.
        device: Type of the device.
        device_name: Name of the GPU or the processor.
        precision: `runtime.precision`.
        compiled: Whether the blocks were compiled.
        checkpointing: `runtime.checkpointing`.
        processes: Number of processes.
        threads: CPU threads of each.
        workers: Loader processes of each.
        batch_size: Images per step over all processes.
        micro_batch_size: Images per forward pass.
        micro_batches: Forward passes per step and process.
        step_seconds: Time of a step, waiting for images included.
        images_per_second: Over all processes.
        peak_gib: Largest memory of this process on a CPU, allocated by it on a GPU.
        estimated_gib: The plan's estimate of it.
        gflop: Necessary operations of a step of one process, in 10^9.
        gflops: The same per second of the median step.
        peak_gflops: The fastest product's rate.
        gemm_share: Of that rate, what the step reached.
        loader_images_per_second: What the loader gives by itself, or None for synthetic views.
        wait_share: Of the time, what was spent waiting for images; None for synthetic views.
        seconds: Of each timed step.
        parameters: Numbers of parameters: `backbone`, `head`.
        versions: Of ibot, Python and PyTorch.
        config: The configuration, by dotted path.
    """

    name: str
    data: str
    device: str
    device_name: str
    precision: str
    compiled: bool
    checkpointing: str
    processes: int
    threads: int
    workers: int
    batch_size: int
    micro_batch_size: int
    micro_batches: int
    step_seconds: Spread
    images_per_second: Spread
    peak_gib: float
    estimated_gib: float
    gflop: float
    gflops: float
    peak_gflops: float
    gemm_share: float
    loader_images_per_second: Spread | None
    wait_share: float | None
    seconds: Sequence[float]
    parameters: Mapping[str, int]
    versions: Mapping[str, str]
    config: Mapping[str, Any]


def result_of(bench: Bench, timings: Timings) -> BenchResult:
    """The figures of a measurement in this process."""
    plan = bench.plan
    runtime, batch = plan.config.runtime, plan.schedule.batch_size
    step = Spread.of(timings.seconds)
    rate = timings.operations / step.median
    described = describe([])
    return BenchResult(
        name=bench.name,
        data=bench.source.name,
        device=plan.device.type,
        device_name=torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else cpu_name(),
        precision=known(runtime.precision),
        compiled=timings.compiled,
        checkpointing=runtime.checkpointing,
        processes=distributed.world(),
        threads=known(runtime.threads),
        workers=known(runtime.workers),
        batch_size=batch,
        micro_batch_size=plan.micro_batch_size,
        micro_batches=plan.micro_batches,
        step_seconds=step,
        images_per_second=_rates(batch, timings.seconds),
        peak_gib=timings.peak_bytes / GIB,
        estimated_gib=known(plan.memory).peak / GIB,
        gflop=timings.operations / 1e9,
        gflops=rate / 1e9,
        peak_gflops=timings.peak_rate / 1e9,
        gemm_share=rate / timings.peak_rate,
        loader_images_per_second=None if timings.loading is None else _rates(batch, timings.loading),
        wait_share=None if timings.loading is None else sum(timings.waited) / sum(timings.seconds),
        seconds=timings.seconds,
        parameters=plan.parameters,
        versions={"ibot": __version__, "python": described["python"], "torch": torch.__version__},
        config=flatten(plan.config),
    )


def _rates(images: int, seconds: Sequence[float]) -> Spread:
    return Spread.of([images / value for value in seconds])
