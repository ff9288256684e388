"""`ibot pretrain`: from a folder of images to a pre-trained backbone."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ibot_cli.options import ConfigFile, Device, DryRun, Init, Partial, Preset, Resume, RunOut, Sets, Workers


def pretrain(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A folder of images, with or without class sub-folders; a text or CSV file of paths; tar shards; "
            "hf:NAME or hf:FOLDER; builtin:digits or builtin:photos. Without it, the digits demonstration runs.",
            show_default=False,
        ),
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    out: RunOut = None,
    resume: Resume = False,
    init: Init = None,
    partial: Partial = False,
    device: Device = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result, or the plan, as JSON on stdout.")] = False,
) -> None:
    """Pre-train a vision transformer on images, without labels.

    Without --preset, what suits the data and the device is chosen and each choice is printed with its reason.
    """
    # Idle OpenMP threads would otherwise spin on cores that other processes need; read once, when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from ibot_cli.train.request import Request

    request = Request(
        data=data, preset=preset, config=config, sets=sets or [], out=out, resume=resume, init=init, partial=partial,
        device=device, workers=workers, arguments=sys.argv,
    )  # fmt: skip
    request.check()

    from ibot_cli import console
    from ibot_cli.plan_view import plan_record, show_plan, show_result
    from ibot_cli.progress import make_reporter, waiting

    with waiting("Loading PyTorch ..."):
        from ibot_cli import distributed
        from ibot_cli.train.interrupt import Interrupted, resume_command
        from ibot_cli.train.launch import execute, prepare

    writes = distributed.rank() == 0
    with distributed.process_group():
        with waiting("Looking at the images and planning ..."):
            prepared = prepare(request, want_memory=dry_run)
        if dry_run and json and writes:
            console.emit_json(plan_record(prepared))
        elif writes:
            show_plan(prepared, full=dry_run)
        if dry_run:
            return
        try:
            result = execute(prepared, make_reporter(writes))
        except Interrupted as stop:  # asked for, so no error; only one process says so
            if writes:
                console.note(f"{stop.message}\n{stop.hint}")
            raise SystemExit(stop.exit_code) from None
        except KeyboardInterrupt:
            console.note(f"Stopped at once. The last checkpoint goes on with: {resume_command(prepared.out)}")
            raise
    if writes and json:
        console.emit_json(result)
    elif writes:
        show_result(result)
