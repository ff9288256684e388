"""`ibot data pack`: images in tar shards, smaller or byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibot_cli import console
from ibot_cli.errors import UsageError
from ibot_cli.options import AnyData, Json, Workers


def data_pack(
    data: AnyData,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder for the shards.", show_default=False)],
    short_side: Annotated[
        int | None,
        typer.Option(metavar="N", help="Longest that the shorter side may be, in pixels; else 320.", min=1),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Keep the bytes of every file.")] = False,
    quality: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of JPEG; else 92.", min=1, max=100),
    ] = None,
    shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Longest that a shard may be.")] = "500MB",
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Pack images into tar shards, in order, with their labels and splits.

    Images whose shorter side is longer than --short-side are made smaller and stored as JPEG; smaller ones keep their
    bytes. Interrupted, the same command goes on after the last complete shard.
    """
    from ibot_cli.data.cores import free_cores
    from ibot_cli.data.packing.options import PackOptions, parse_size
    from ibot_cli.data.packing.pack import pack
    from ibot_cli.pack_view import Progress, show, stopped

    if copy and (short_side is not None or quality is not None):
        raise UsageError("--copy keeps the images as they are.", "Leave --short-side and --quality out, or --copy.")
    options = PackOptions(
        copy=copy,
        short_side=PackOptions.short_side if short_side is None or copy else short_side,
        quality=PackOptions.quality if quality is None or copy else quality,
        shard_bytes=parse_size(shard_size),
    )
    cores = free_cores()
    try:
        with Progress() as report:
            result = pack(
                data, out, options, workers=(cores if cores > 1 else 0) if workers is None else workers, report=report
            )
    except (KeyboardInterrupt, SystemExit):
        stopped(out)
        raise
    show(result)
    if json:
        console.emit_json(result)
