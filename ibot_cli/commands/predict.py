"""`ibot predict`: what a fine-tuned run says about images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ibot_cli import console
from ibot_cli.errors import DataError, UsageError
from ibot_cli.options import Device, Heads, Partial, Workers


def predict(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS",
            help="A run or checkpoint of `ibot finetune`, or another file with a classifier.",
            show_default=False,
        ),
    ],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...", help="Image files, and folders whose images are all taken.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to FILE.csv or FILE.json instead of stdout.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of CSV.")] = False,
    top: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="Only the K most probable classes of each image.")
    ] = None,
    device: Device = None,
    workers: Workers = None,
    heads: Heads = None,
    partial: Partial = False,
) -> None:
    """Classify images with a fine-tuned run: a CSV line each, with the probability of every class.

    Images that cannot be read are named on stderr; the others are classified all the same, and the exit code is 1.
    """
    if out is not None and out.suffix not in (".csv", ".json"):
        raise UsageError(f"--out {out} says neither .csv nor .json.", "The end of the name decides what is written.")
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"There is no folder {out.parent} for --out.", "Make it first, or choose another place.")
    from ibot_cli.durable import write_atomically
    from ibot_cli.evaluate import predict as library
    from ibot_cli.evaluate.features import default_workers
    from ibot_cli.progress import stage_bars
    from ibot_cli.train.machine import choose_device

    chosen = choose_device(None if device == "auto" else device)
    loaded = library.load_classifier(weights, heads=heads, partial=partial)
    source = library.open_images(images, loaded.channels, loaded.bits)
    with stage_bars() as progress:
        found = library.predict(
            loaded,
            source,
            top=top,
            device=chosen,
            workers=default_workers(chosen) if workers is None else workers,
            progress=lambda done, total: progress("images", done, total),
        )
    if out is not None:
        text = library.as_json(found) if out.suffix == ".json" else library.as_csv(found, top)
        write_atomically(out, lambda file: file.write(text.encode()))
        console.note(f"{len(found.images):,} images classified: {out}")
    if json or out is None:
        sys.stdout.write(library.as_json(found) if json else library.as_csv(found, top))
    for text in (*loaded.notes, *source.notes, *(f"{path}: {reason}" for path, reason in found.unreadable.items())):
        console.warn(text)
    if found.unreadable:
        raise DataError(
            f"{len(found.unreadable):,} of {len(source):,} images could not be read; they are named above.",
            "The others are classified; repair or remove these.",
        )
