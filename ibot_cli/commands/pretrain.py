"""`ibot pretrain`: from a folder of images to a pre-trained backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A folder of images, with or without class sub-folders; a text file of paths; or builtin:digits. "
            "Without it, the digits demonstration runs.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A recipe; see `ibot presets list`.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML file with settings; wins over the preset.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="One setting, for example optim.lr=1e-3; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run directory to write.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:N or auto.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Loader processes; 0 loads in the main process.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan and run no step.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: print the plan as JSON.")] = False,
) -> None:
    """Pre-train a vision transformer on images, without labels.

    Without --preset, what suits the data and the device is chosen and each choice is printed with its reason.
    """
    from ibot_cli.train.launch import pretrain as launch  # type: ignore[import-not-found, unused-ignore]

    launch(
        data=data,
        preset=preset,
        config=config,
        sets=sets or [],
        out=out,
        resume=resume,
        device=device,
        workers=workers,
        dry_run=dry_run,
        json=json,
    )
