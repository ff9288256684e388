"""`ibot visualize-patterns`: what the prototypes of a network stand for, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ibot_cli import console
from ibot_cli.options import (
    AnyData,
    Device,
    Heads,
    Json,
    NoBaselines,
    Partial,
    Precision,
    Seed,
    WeightsArgument,
    Which,
    Workers,
    whole_numbers,
)


def visualize_patterns(
    weights: WeightsArgument,
    data: AnyData,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the figures here; default: figures/patterns in the run, else ./patterns.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        Literal["patch", "cls"],
        typer.Option(help="Patches by the patch head, or images by that of class tokens."),
    ] = "patch",
    top_k: Annotated[int, typer.Option(metavar="N", help="Best patches of each, at most one per image.", min=1)] = 36,
    window: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Patches per side that are shown around each, odd; default 5, less on a tiny grid.",
            show_default=False,
        ),
    ] = None,
    num_patterns: Annotated[int, typer.Option(metavar="N", help="Prototypes that are shown.", min=1)] = 20,
    order: Annotated[
        Literal["population", "confidence", "purity"],
        typer.Option(help="Which first: with the most patches, the most probable, or with the purest labels."),
    ] = "population",
    prototypes: Annotated[
        str | None, typer.Option(metavar="K,K,...", help="Show these prototypes instead.", show_default=False)
    ] = None,
    min_brightness: Annotated[
        float,
        typer.Option(metavar="LEVEL", help="Leave out patches that are no brighter (0 to 255); -1 keeps all."),
    ] = 40.0,
    split: Annotated[
        Literal["auto", "train", "test", "all"],
        typer.Option(help="Which images; auto is the test part where the data have one of their own, else all."),
    ] = "auto",
    baseline: Annotated[
        Literal["none", "random"], typer.Option(help="Draw the patterns of random weights beside them.")
    ] = "none",
    json: Json = False,
    no_baselines: NoBaselines = False,
    precision: Precision = "fp32",
    which: Which = "teacher",
    seed: Seed = 0,
    device: Device = None,
    workers: Workers = None,
    heads: Heads = None,
    partial: Partial = False,
) -> None:
    """Show the patches that a network's head puts into the same prototype, and how well they agree with labels.

    Writes a sheet per pattern, an overview, a page to look around in (index.html) and all numbers (patterns.json).
    """
    named = None if prototypes is None else tuple(whole_numbers("--prototypes", prototypes, "3,17"))
    from ibot_cli.evaluate.cluster.images import open_images
    from ibot_cli.evaluate.features import default_workers
    from ibot_cli.evaluate.precision import check_precision
    from ibot_cli.progress import stage_bars
    from ibot_cli.quantities import counted
    from ibot_cli.train.machine import choose_device
    from ibot_cli.visualize.patterns.files import check_pattern_folder, default_folder, pattern_numbers
    from ibot_cli.visualize.patterns.protocol import draw_patterns
    from ibot_cli.visualize.patterns.result import PatternOptions
    from ibot_cli.visualize.patterns.table import show_patterns
    from ibot_cli.visualize.patterns.window import choose_window
    from ibot_cli.weights.load import load_weights

    check_precision(precision)
    folder = default_folder(weights, kind) if out is None else out
    check_pattern_folder(folder)
    chosen = choose_device(None if device == "auto" else device)
    loaded = load_weights(weights, which=which, heads=heads, partial=partial)
    options = PatternOptions(
        kind=kind,
        top_k=top_k,
        window=choose_window(loaded, kind, window),
        num_patterns=num_patterns,
        order=order,
        prototypes=named,
        min_brightness=min_brightness,
        seed=seed,
        precision=precision,
        device=chosen,
        workers=default_workers(chosen) if workers is None else workers,
    )
    images = open_images(data, channels=loaded.channels, bits=loaded.bits, part=split)
    settings = {
        "weights": weights,
        "data": data,
        "split": split,
        "which": which,
        "heads": heads,
        "partial": partial,
        "num_patterns": num_patterns,
        "prototypes": named,
        "seed": seed,
        "precision": precision,
        "baseline": baseline,
        "baselines": not no_baselines,
    }
    with stage_bars() as progress:
        drawn = draw_patterns(
            loaded,
            images.source,
            folder,
            options,
            random=baseline == "random",
            baselines=not no_baselines,
            settings=settings,
            progress=progress,
        )
    show_patterns(drawn.found)
    if json:
        console.emit_json({"folder": folder, **pattern_numbers(drawn.found, drawn.beside, settings)})
    sheets = counted(len(drawn.files.sheets) + len(drawn.files.random_sheets), "sheet")
    names = f"{drawn.files.overview.name}, {drawn.files.numbers.name} and {drawn.files.page.name}"
    console.note(f"{sheets}, {names} are in {folder}; open {drawn.files.page.name} in a browser to look around.")
