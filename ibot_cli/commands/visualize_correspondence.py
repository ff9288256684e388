"""`ibot visualize-correspondence`: which patches of two images, or of two views, a network takes for the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ibot_cli import console
from ibot_cli.options import Device, Heads, Json, Partial, Precision, Seed, WeightsArgument, Which


def visualize_correspondence(
    weights: WeightsArgument,
    first: Annotated[
        str,
        typer.Argument(metavar="IMAGE|DATA", help="An image file; alone also DATA, as elsewhere.", show_default=False),
    ],
    second: Annotated[
        str | None, typer.Argument(metavar="[IMAGE]", help="Another image file.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="The picture to write; default: figures/correspondence_IMAGES.png in the run, else "
            "./correspondence.png.",
            show_default=False,
        ),
    ] = None,
    num: Annotated[int, typer.Option(metavar="N", help="Matches to draw, the best ones.", min=1)] = 20,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Pixels of the shorter side, or of a view; default the network's own. More show finer matches.",
            min=1,
            show_default=False,
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Pairs of views per image; default 16 of one image, 2 of DATA.", min=1, show_default=False
        ),
    ] = None,
    changes: Annotated[
        Literal["run", "published", "none"],
        typer.Option(
            help="How views are mirrored, jittered and turned grey: as in the training of the run (else as published), "
            "as published, or not at all."
        ),
    ] = "run",
    images: Annotated[int, typer.Option(metavar="N", help="Images of DATA, spread over all.", min=1)] = 64,
    rows: Annotated[int, typer.Option(metavar="N", help="Images of DATA on the picture.", min=1)] = 6,
    json: Json = False,
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="Skip random weights.")] = False,
    precision: Precision = "fp32",
    which: Which = "teacher",
    seed: Seed = 0,
    device: Device = None,
    heads: Heads = None,
    partial: Partial = False,
) -> None:
    """Draw which patches match: those that are each other's nearest by the cosine of their features.

    With two images, the best matches between them. With one image or DATA, two augmented views of the same image are
    matched, and since it is known where they were cut, also how often the right patch is found, beside random weights
    and chance.
    """
    from ibot_cli.evaluate.precision import check_precision
    from ibot_cli.progress import stage_bars
    from ibot_cli.runs.evaluations import record_evaluation
    from ibot_cli.train.machine import choose_device
    from ibot_cli.visualize.correspondence.figures import image_figure, views_figure
    from ibot_cli.visualize.correspondence.images import match_images
    from ibot_cli.visualize.correspondence.picture import picture_path, write_picture
    from ibot_cli.visualize.correspondence.subject import check_two_files, open_subject
    from ibot_cli.visualize.correspondence.table import show_images, show_views
    from ibot_cli.visualize.correspondence.views import ViewOptions, match_views
    from ibot_cli.weights.load import load_weights

    check_precision(precision)
    picture = picture_path(out, weights, first, second)
    if second is not None:
        check_two_files(first, second)
    chosen = choose_device(None if device == "auto" else device)
    loaded = load_weights(weights, which=which, heads=heads, partial=partial)
    for text in loaded.notes:
        console.warn(text)
    if second is not None:
        matches, seen = match_images(loaded, (first, second), size=size, device=chosen, precision=precision)
        write_picture(picture, image_figure(matches, seen, num=num))
        show_images(matches)
        if json:
            console.emit_json(matches)
        console.note(f"The picture is {picture}.")
        return
    subject = open_subject(first, channels=loaded.channels, bits=loaded.bits, most=images)
    options = ViewOptions(
        pairs=pairs or subject.default_pairs,
        size=size,
        changes=changes,
        seed=seed,
        baselines=not no_baselines,
        shown=rows,
        device=chosen,
        precision=precision,
    )
    with stage_bars() as progress:
        found, drawn = match_views(loaded, subject.source, options, data=first, index=subject.index, progress=progress)
    write_picture(picture, views_figure(found, drawn, num=num))
    show_views(found)
    if json:
        console.emit_json(found)
    console.note(f"The picture is {picture}.")
    settings = {"images": images, "which": which, "heads": heads, "partial": partial, "baselines": not no_baselines}
    settings |= {name: getattr(options, name) for name in ("pairs", "size", "scale", "changes", "seed", "precision")}
    if not subject.single:
        record_evaluation(weights, "visualize-correspondence", settings=settings, result=found.figures())
