"""`ibot visualize-attention`: what a network attends to in images, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibot_cli import console
from ibot_cli.options import Device, Heads, Json, Partial, Seed, WeightsArgument, Which


def visualize_attention(
    weights: WeightsArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...",
            help="Image files; or DATA (a folder, a list of paths, tar shards, hf:NAME, builtin:NAME), of which --num "
            "are drawn.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Default: figures/attention in the run, else ./attention. Figures of an earlier call are replaced.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Pixels of the shorter side; default the network's own. More show finer maps: try 480.",
            min=1,
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Show the fewest patches that hold this share of each head's attention, such as 0.6.",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y",
            help="Attention of the patch at this pixel of the image, in place of the class token; may be repeated.",
            show_default=False,
        ),
    ] = None,
    pca: Annotated[
        bool, typer.Option("--pca/--no-pca", help="Also draw the patch features of all images as colours.")
    ] = False,
    num: Annotated[int, typer.Option(metavar="N", help="Images of DATA to draw.", min=1)] = 6,
    json: Json = False,
    which: Which = "teacher",
    seed: Seed = 0,
    device: Device = None,
    heads: Heads = None,
    partial: Partial = False,
) -> None:
    """Draw what the last block attends to: the image, all heads in colours, and each head.

    Images may have any size and shape. Without a class token, as in Swin, say with --at whose attention to draw.
    """
    from ibot_cli.progress import stage_bars
    from ibot_cli.train.machine import choose_device
    from ibot_cli.visualize.attention.files import check_attention_folder, default_folder, draw_attention
    from ibot_cli.visualize.attention.result import AttentionOptions, points
    from ibot_cli.weights.load import load_weights

    options = AttentionOptions(
        size=size,
        threshold=threshold,
        at=points(at or []),
        pca=pca,
        num=num,
        seed=seed,
        device=choose_device(None if device == "auto" else device),
    )
    folder = default_folder(weights) if out is None else out
    check_attention_folder(folder)
    instead = ", in place of the earlier ones" if any(folder.glob("*")) else ""
    loaded = load_weights(weights, which=which, heads=heads, partial=partial)
    with stage_bars() as progress:
        found = draw_attention(folder, loaded, images, options, progress=progress)
    for text in (*loaded.notes, *found.notes):
        console.warn(text)
    if json:
        console.emit_json(found)
    count = len(found.files)
    console.note(f"{count} figure{'s are' if count > 1 else ' is'} in {folder}{instead}.")
