"""`ibot data stats`: what is in a set of images."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ibot_cli import console
from ibot_cli.options import AnyData, Json, Workers


def data_stats(
    data: AnyData,
    channels: Annotated[
        int, typer.Option(metavar="N", help="Channels that the images are read as; see data.channels.", min=1)
    ] = 3,
    bits: Annotated[Literal["8", "16"], typer.Option(help="Bits per level that are kept; see data.bits.")] = "8",
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Look at a random sample of so many images.", min=1, show_default=False),
    ] = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Count images and classes, find damaged files and duplicates, and measure sizes, formats and channels.

    Every image of the training and the test part is read and decoded once. Duplicates are the same file, the same
    pixels, or images that look the same by a perceptual hash. --json has all of them; the tables show some.
    """
    from ibot_cli.data.cores import free_cores
    from ibot_cli.data.statistics.statistics import measure_data
    from ibot_cli.data_view import show
    from ibot_cli.pack_view import Progress

    cores = free_cores()
    with Progress() as progress:
        found = measure_data(
            data,
            channels=channels,
            bits=int(bits),
            limit=limit,
            workers=(cores if cores > 1 else 0) if workers is None else workers,
            progress=progress,
        )
    show(found)
    if json:
        console.emit_json(found)
