"""`ibot finetune`: from pre-trained weights and labelled images to a classifier."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ibot_cli.options import (
    WEIGHTS_HELP,
    ConfigFile,
    Device,
    DryRun,
    Heads,
    Json,
    Partial,
    Preset,
    Resume,
    RunOut,
    Sets,
    Which,
    Workers,
)


def finetune(
    weights: Annotated[
        str | None,
        typer.Argument(
            metavar="WEIGHTS",
            help=WEIGHTS_HELP,
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="Labelled images: a folder with class sub-folders (train/ and val/ inside are used), a CSV file, tar "
            "shards, hf:NAME or hf:FOLDER, builtin:digits or builtin:photos.",
            show_default=False,
        ),
    ] = None,
    out: RunOut = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    label_fraction: Annotated[
        float | None, typer.Option(metavar="F", help="Use this share of each class's labels.", show_default=False)
    ] = None,
    labels_per_class: Annotated[
        int | None, typer.Option(metavar="N", help="Use so many labels of each class.", show_default=False)
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Random weights in the same network, to compare with.")
    ] = False,
    resume: Resume = False,
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="Skip the k-NN of raw pixels.")] = False,
    device: Device = None,
    workers: Workers = None,
    which: Which = "teacher",
    heads: Heads = None,
    partial: Partial = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train a classifier on pre-trained weights, all layers of them.

    The last step's accuracy on the test images is the figure to quote; the best step stands beside it.
    """
    # Idle OpenMP threads would otherwise spin on cores that other processes need; read once, when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from ibot_cli.train.finetune.request import FinetuneRequest

    request = FinetuneRequest(
        weights=weights, data=data, preset=preset, config=config, sets=sets or [], out=out, resume=resume,
        label_fraction=label_fraction, labels_per_class=labels_per_class, from_scratch=from_scratch, device=device,
        workers=workers, heads=heads, which=which, partial=partial, baselines=not no_baselines, arguments=sys.argv,
    )  # fmt: skip
    request.check()

    from ibot_cli import console
    from ibot_cli.finetune_view import plan_record, show_plan, show_result
    from ibot_cli.progress import make_reporter, waiting

    with waiting("Loading PyTorch ..."):
        from ibot_cli import distributed
        from ibot_cli.train.finetune.launch import execute
        from ibot_cli.train.finetune.prepare import prepare
        from ibot_cli.train.interrupt import Interrupted, resume_command

    writes = distributed.rank() == 0
    with distributed.process_group():
        with waiting("Looking at weights and images and planning ..."):
            prepared = prepare(request, want_memory=dry_run)
        if dry_run and json and writes:
            console.emit_json(plan_record(prepared))
        elif writes:
            show_plan(prepared, full=dry_run)
        if dry_run:
            return
        try:
            result, recorded = execute(prepared, make_reporter(writes))
        except Interrupted as stop:  # asked for, so no error; only one process says so
            if writes:
                console.note(f"{stop.message}\n{stop.hint}")
            raise SystemExit(stop.exit_code) from None
        except KeyboardInterrupt:
            again = resume_command(prepared.out, "finetune")
            console.note(f"Stopped at once. The last checkpoint goes on with: {again}")
            raise
    if writes and json:
        console.emit_json(result)
    elif writes:
        show_result(result, recorded)
