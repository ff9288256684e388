"""`ibot retrieve`: the nearest images of each query, how often they are right, and images that occur twice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ibot_cli import console
from ibot_cli.errors import UsageError
from ibot_cli.options import (
    AnyData,
    Device,
    Heads,
    Json,
    NoBaselines,
    NoCache,
    Partial,
    Precision,
    WeightsArgument,
    Which,
    Workers,
)


def retrieve(
    weights: WeightsArgument,
    data: AnyData,
    queries: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUERIES", help="Images and folders to look up in DATA; default: DATA's own images."),
    ] = None,
    k: Annotated[int, typer.Option("--k", metavar="K", help="Neighbours to list per query.", min=1)] = 10,
    pooling: Annotated[
        str, typer.Option(metavar="TEXT", help="Which tokens make a feature: cls, mean, cls4, cls+mean, ...")
    ] = "cls",
    split: Annotated[
        Literal["auto", "train", "test", "all"],
        typer.Option(
            help="The part of DATA that is searched, image by image; auto looks test images up among training images "
            "where DATA have both, else takes all."
        ),
    ] = "auto",
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="List the images of DATA that occur more than once, instead.")
    ] = False,
    threshold: Annotated[
        float, typer.Option(metavar="COSINE", help="With --duplicates: a larger cosine makes a duplicate.")
    ] = 0.999,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write everything here as CSV.", show_default=False)
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw queries and neighbours here.", show_default=False)
    ] = None,
    rows: Annotated[int, typer.Option(metavar="N", help="Queries, or groups, on the sheet at most.", min=1)] = 12,
    backend: Annotated[
        Literal["auto", "torch", "faiss"],
        typer.Option(help="What searches, with the same answer; auto is faiss on a GPU that it sees, else torch."),
    ] = "auto",
    json: Json = False,
    no_baselines: NoBaselines = False,
    no_cache: NoCache = False,
    precision: Precision = "fp32",
    which: Which = "teacher",
    device: Device = None,
    workers: Workers = None,
    heads: Heads = None,
    partial: Partial = False,
) -> None:
    """Find the nearest images of each query, score them against labels, or list duplicates.

    Without QUERIES and with labels, mean average precision stands beside random weights and raw pixels.
    """
    if duplicates and queries:
        raise UsageError("--duplicates compares the images of DATA with each other.", "Leave QUERIES out.")
    from ibot_cli.evaluate.cluster.center_search import choose_backend
    from ibot_cli.evaluate.features import default_workers
    from ibot_cli.evaluate.output_file import check_output
    from ibot_cli.evaluate.pooling import parse_pooling
    from ibot_cli.evaluate.precision import check_precision
    from ibot_cli.evaluate.retrieval.duplicate_search import check_threshold, find_duplicates
    from ibot_cli.evaluate.retrieval.gallery import open_gallery
    from ibot_cli.evaluate.retrieval.lookup import FeatureOptions
    from ibot_cli.evaluate.retrieval.protocol import retrieve as look_up
    from ibot_cli.evaluate.retrieval.queries import open_search
    from ibot_cli.progress import stage_bars
    from ibot_cli.retrieve_view import Output, show_duplicates, show_neighbours
    from ibot_cli.runs.evaluations import record_evaluation
    from ibot_cli.train.machine import choose_device
    from ibot_cli.weights.load import load_weights

    check_precision(precision)
    parse_pooling(pooling)
    check_threshold(threshold)
    for path, option, ending in ((out, "--out", ".csv"), (sheet, "--sheet", ".png")):
        if path is not None:
            check_output(path, option, ending)
    chosen = choose_device(None if device == "auto" else device)
    choose_backend(backend, chosen)
    options = FeatureOptions(
        pooling=pooling,
        precision=precision,
        device=chosen,
        workers=default_workers(chosen) if workers is None else workers,
        cache=not no_cache,
        backend=backend,
    )
    loaded = load_weights(weights, which=which, heads=heads, partial=partial)
    output = Output(out=out, sheet=sheet, rows=rows, json=json)
    if duplicates:
        with stage_bars() as progress:
            groups, source = find_duplicates(
                loaded, data, part=split, threshold=threshold, options=options, progress=progress
            )
        show_duplicates(groups, source, output)
        return
    gallery = (
        open_search(data, queries, channels=loaded.channels, bits=loaded.bits, part=split)
        if queries
        else open_gallery(data, channels=loaded.channels, bits=loaded.bits, part=split)
    )
    with stage_bars() as progress:
        result, found = look_up(
            loaded,
            gallery,
            data,
            k=k,
            baselines=not no_baselines,
            listed=output.lists or not gallery.measured,
            options=options,
            progress=progress,
        )
    show_neighbours(result, found, gallery, output)
    if result.mean_average_precision is None:
        return
    settings = {
        "k": k,
        "pooling": pooling,
        "split": split,
        "precision": precision,
        "which": which,
        "heads": heads,
        "partial": partial,
    }
    path = record_evaluation(weights, "retrieve", settings=settings | {"baselines": not no_baselines}, result=result)
    if path is not None and not json:
        console.note(f"Recorded in {path}.")
