"""`ibot embed`: features of images in a file, for use in other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ibot_cli import console
from ibot_cli.options import AnyData, Device, Heads, Json, NoCache, Partial, Precision, WeightsArgument, Which, Workers


def embed(
    weights: WeightsArgument,
    data: AnyData,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="FILE.npy (with paths and labels in FILE.json), FILE.parquet or FILE.safetensors."
        ),
    ],
    pooling: Annotated[
        str, typer.Option(metavar="WHAT", help="Class token, mean of the patches, or both: cls, cls4, mean, cls+mean.")
    ] = "cls",
    split: Annotated[
        Literal["all", "train", "test"], typer.Option(help="Part of the images, where the data have parts.")
    ] = "all",
    normalize: Annotated[bool, typer.Option("--normalize", help="Give each row length 1.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    precision: Precision = "fp32",
    which: Which = "teacher",
    json: Json = False,
    no_cache: NoCache = False,
    device: Device = None,
    workers: Workers = None,
    heads: Heads = None,
    partial: Partial = False,
) -> None:
    """Write the features of images to a file, with their paths and, where there are any, labels."""
    from ibot_cli.evaluate.embed import embed as library
    from ibot_cli.evaluate.embedding_files import check_can_write
    from ibot_cli.evaluate.features import default_workers
    from ibot_cli.evaluate.pooling import parse_pooling
    from ibot_cli.evaluate.precision import check_precision
    from ibot_cli.progress import stage_bars
    from ibot_cli.train.machine import choose_device
    from ibot_cli.weights.load import load_weights

    check_can_write(out, force=force)
    parse_pooling(pooling)
    check_precision(precision)
    chosen = choose_device(None if device == "auto" else device)
    loaded = load_weights(weights, which=which, heads=heads, partial=partial)
    with stage_bars() as progress:
        result = library(
            loaded,
            data,
            out,
            pooling=pooling,
            split=split,
            normalize=normalize,
            precision=precision,
            device=chosen,
            workers=default_workers(chosen) if workers is None else workers,
            cache=not no_cache,
            progress=lambda done, total: progress("images", done, total),
        )
    labels = f"labels of {result.classes:,} classes" if result.classes else "no labels"
    files = " and ".join(str(file) for file in result.files)
    console.note(f"{result.shape[0]:,} images, {result.shape[1]:,} features each ({pooling}), {labels}: {files}")
    for text in (*result.notes, *(f"{path}: {reason}" for path, reason in result.unreadable.items())):
        console.warn(text)
    if json:
        console.emit_json(result)
