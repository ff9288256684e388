"""`ibot cluster`: groups of images that a network forms without labels, and how well they match labels."""

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
    NoCache,
    Partial,
    Precision,
    Seed,
    WeightsArgument,
    Which,
    Workers,
    positive_integers,
)


def cluster(
    weights: WeightsArgument,
    data: AnyData,
    k: Annotated[
        str | None,
        typer.Option(
            "--k", metavar="K,K,...", help="Clusters for k-means; default: as many as classes.", show_default=False
        ),
    ] = None,
    split: Annotated[
        Literal["auto", "train", "test", "all"],
        typer.Option(help="Images to cluster; auto is the test part where the data have one of their own, else all."),
    ] = "auto",
    restarts: Annotated[int, typer.Option(metavar="N", help="Runs of k-means; the best one counts.", min=1)] = 10,
    spherical: Annotated[
        bool, typer.Option("--spherical/--no-spherical", help="k-means by cosine, or by Euclidean distance.")
    ] = True,
    standardize: Annotated[
        bool, typer.Option("--standardize/--no-standardize", help="Give each feature mean 0 and deviation 1 first.")
    ] = True,
    backend: Annotated[
        Literal["auto", "torch", "faiss"],
        typer.Option(help="What finds the nearest centres; auto is faiss on a GPU that it sees, else torch."),
    ] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write the cluster of each image here.", show_default=False),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write picture sheets of the clusters here.", show_default=False),
    ] = None,
    max_figures: Annotated[int, typer.Option(metavar="N", help="Sheets of single clusters per method.", min=0)] = 20,
    json: Json = False,
    no_baselines: NoBaselines = False,
    no_cache: NoCache = False,
    precision: Precision = "fp32",
    which: Which = "teacher",
    seed: Seed = 0,
    device: Device = None,
    workers: Workers = None,
    heads: Heads = None,
    partial: Partial = False,
) -> None:
    """Group images by the network's own prototypes and by k-means of its features.

    With labels the clusters are scored against them, beside chance, random weights and raw pixels.
    """
    ks = None if k is None else positive_integers("--k", k, "10,20,50")
    from ibot_cli.evaluate.cluster.assignment_file import check_assignment_file, write_assignments
    from ibot_cli.evaluate.cluster.protocol import evaluate_clusters
    from ibot_cli.evaluate.cluster.result import ClusterOptions
    from ibot_cli.evaluate.cluster.table import show
    from ibot_cli.evaluate.features import default_workers
    from ibot_cli.evaluate.precision import check_precision
    from ibot_cli.progress import stage_bars
    from ibot_cli.runs.evaluations import record_evaluation
    from ibot_cli.train.machine import choose_device
    from ibot_cli.visualize.cluster_sheets import check_figures, write_cluster_sheets
    from ibot_cli.weights.load import load_weights

    check_precision(precision)
    if out is not None:
        check_assignment_file(out)
    if figures is not None:
        check_figures(figures)
    chosen = choose_device(None if device == "auto" else device)
    loaded = load_weights(weights, which=which, heads=heads, partial=partial)
    options = ClusterOptions(
        restarts=restarts,
        spherical=spherical,
        standardize=standardize,
        seed=seed,
        backend=backend,
        precision=precision,
        device=chosen,
        workers=default_workers(chosen) if workers is None else workers,
        cache=not no_cache,
    )
    with stage_bars() as progress:
        found = evaluate_clusters(
            loaded, data, ks=ks, part=split, baselines=not no_baselines, options=options, progress=progress
        )
    show(found.result)
    if json:
        console.emit_json(found.result)
    if out is not None:
        write_assignments(out, found)
        console.note(f"The cluster of each image is in {out}.")
    if figures is not None:
        files = write_cluster_sheets(figures, found, most=max_figures)
        console.note(f"{len(files)} picture sheets are in {figures}.")
    settings = {
        "k": ks,
        "split": split,
        "which": which,
        "heads": heads,
        "partial": partial,
        "baselines": not no_baselines,
    }
    settings |= {name: getattr(options, name) for name in ("restarts", "spherical", "standardize", "seed", "precision")}
    path = record_evaluation(weights, "cluster", settings=settings, result=found.result)
    if path is not None and not json:
        console.note(f"Recorded in {path}.")
