"""`ibot bench`: how fast training is on this machine."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ibot_cli.options import ConfigFile, Device, Json, Preset, Sets, Workers


def bench(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="Images, as of pretrain; then loading is timed too. Without it, the views are synthetic.",
            show_default=False,
        ),
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    device: Device = None,
    workers: Workers = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images per step; else what fits into a GPU at once, on a CPU what takes some seconds.",
            min=1,
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps that count.", min=1)] = 10,
    warmup: Annotated[int, typer.Option(metavar="N", help="Steps before them.", min=1)] = 2,
    row: Annotated[bool, typer.Option("--row", help="Print a row of a Markdown table instead of the table.")] = False,
    json: Json = False,
) -> None:
    """Time the training steps of a recipe: images per second, memory, and what of the machine they use.

    The steps are those of a run, decided by the same plan; nothing is kept.
    """
    # Idle OpenMP threads would otherwise spin on cores that other processes need; read once, when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from ibot_cli.errors import UsageError

    if row and json:
        raise UsageError("--row and --json exclude each other.", "Leave one of them out.")

    from ibot_cli.train.request import Request

    request = Request(
        data=data, preset=preset, config=config, sets=sets or [], device=device, workers=workers, arguments=sys.argv
    )
    request.check()

    from ibot_cli import console
    from ibot_cli.bench_view import BenchReporter, show_bench, show_row
    from ibot_cli.progress import waiting

    with waiting("Loading PyTorch ..."):
        from ibot_cli import distributed
        from ibot_cli.train.bench.measure import measure
        from ibot_cli.train.bench.result import result_of
        from ibot_cli.train.bench.setup import prepare_bench

    with distributed.process_group():
        with waiting("Planning ..."):
            prepared = prepare_bench(request, batch_size)
        for warning in prepared.plan.warnings:
            console.warn(warning)
        timings = measure(prepared, steps=steps, warmup=warmup, reporter=BenchReporter())
        result = result_of(prepared, timings)
    if json:
        console.emit_json(result)
    elif row:
        show_row(result)
    else:
        show_bench(result)
