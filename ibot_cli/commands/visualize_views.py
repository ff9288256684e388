"""`ibot visualize-views`: the crops, changes and masks that training would see, before it is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibot_cli import console
from ibot_cli.options import ConfigFile, Json, Preset, Sets


def visualize_views(
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="As for `ibot pretrain`; default builtin:digits.", show_default=False),
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    num: Annotated[int, typer.Option(metavar="N", help="Images to show, the first of the epoch.")] = 4,
    epoch: Annotated[int, typer.Option(metavar="N", help="Counted from 0; each draws other views.", min=0)] = 0,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Short for --set train.seed=N.", min=0, show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture to write.")] = Path("views.png"),
    json: Json = False,
) -> None:
    """Draw what training sees: the crops of an image, what happened to them, and which patches are masked.

    The views come from the loader of `ibot pretrain` with the same settings, so a run with this seed sees these very
    pixels and masks.
    """
    from ibot_cli.train.request import Request

    chosen = [*(sets or []), *([] if seed is None else [f"train.seed={seed}"])]
    request = Request(data=data, preset=preset, config=config, sets=chosen)
    request.check()

    from ibot_cli.evaluate.output_file import check_output
    from ibot_cli.visualize.png import write_png
    from ibot_cli.visualize.views.samples import training_views
    from ibot_cli.visualize.views.sheet import views_sheet
    from ibot_cli.visualize.views.table import show_training_views

    check_output(out, "--out", ".png")
    found, pixels, source = training_views(request, num=num, epoch=epoch)
    write_png(out, views_sheet(found, pixels, source))
    show_training_views(found)
    if json:
        console.emit_json(found)
    console.note(f"The picture is {out}.")
