"""`ibot linear-probe`: how well a linear classifier reads the frozen features."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated, Any, Literal

import typer

from ibot_cli import console
from ibot_cli.options import (
    Device,
    Heads,
    Json,
    LabelledData,
    NoBaselines,
    NoCache,
    Partial,
    Seed,
    WeightsArgument,
    Which,
    Workers,
)


def linear_probe(
    weights: WeightsArgument,
    data: LabelledData,
    pooling: Annotated[
        str | None,
        typer.Option(
            metavar="P,P,...",
            help="Features: cls, cls4 (last four blocks), cls+mean, ... By default what was published for the network.",
            show_default=False,
        ),
    ] = None,
    solver: Annotated[
        Literal["sgd", "lbfgs"], typer.Option(help="The published sweep, or logistic regression, which is quick.")
    ] = "sgd",
    lrs: Annotated[
        str, typer.Option(metavar="LR,LR,...", help="Learning rates at a batch of 256; `published` are 45.")
    ] = "published",
    all_optimizers: Annotated[
        bool, typer.Option("--all-optimizers", help="Each rate with SGD and LARS, with and without weight decay.")
    ] = False,
    epochs: Annotated[int, typer.Option(metavar="N", help="Epochs of the sweep.")] = 100,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Images per step, over all processes.")] = 128,
    holdout: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the training images that chooses the head.")
    ] = 0.1,
    augment: Annotated[
        bool, typer.Option("--augment", help="New crops in every epoch, as published, instead of fixed features.")
    ] = False,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Flips with --augment. Default: as WEIGHTS were trained, else on."),
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="TYPE", help="Arithmetic of the network and of the heads' products: fp32 or bf16.")
    ] = "fp32",
    seed: Seed = 0,
    json: Json = False,
    no_baselines: NoBaselines = False,
    no_cache: NoCache = False,
    device: Device = None,
    workers: Workers = None,
    heads: Heads = None,
    partial: Partial = False,
    which: Which = "teacher",
) -> None:
    """Train linear classifiers on frozen features: the published sweep of 45 learning rates, all at once.

    Held-out training images choose the classifier whose test accuracy is reported. Beside it stands the best on the
    test images, which is how such figures are usually published.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in pretrain
    from ibot_cli import distributed
    from ibot_cli.evaluate.batches import default_workers
    from ibot_cli.evaluate.linear.augment import flips
    from ibot_cli.evaluate.linear.grid import parse_rates
    from ibot_cli.evaluate.linear.protocol import evaluate_linear
    from ibot_cli.evaluate.linear.settings import Means, ProbeSettings, parse_poolings, published_pooling
    from ibot_cli.evaluate.linear.view import show
    from ibot_cli.progress import stage_bars
    from ibot_cli.runs.evaluations import record_evaluation
    from ibot_cli.train.machine import choose_device
    from ibot_cli.weights.load import load_weights

    options: dict[str, Any] = {
        "solver": solver, "rates": parse_rates(lrs), "all_optimizers": all_optimizers, "epochs": epochs,
        "batch_size": batch_size, "holdout": holdout, "seed": seed, "augment": augment, "precision": precision,
        "flip": flips(weights) if flip is None else flip,
    }  # fmt: skip
    settings = ProbeSettings(poolings=parse_poolings(pooling or "cls"), **options)  # refuses before anything is loaded
    chosen = choose_device(None if device == "auto" else device)
    loaded = load_weights(weights, which=which, heads=heads, partial=partial)
    if pooling is None:
        settings = replace(settings, poolings=(published_pooling(loaded.backbone),))
    with distributed.process_group(), stage_bars() as progress:
        threads = default_workers(chosen) if workers is None else workers
        means = Means(device=chosen, workers=threads, cache=not no_cache, progress=progress)
        found = evaluate_linear(loaded, data, settings, means, baselines=not no_baselines)
    show(found.result)
    if json:
        console.emit_json(found.result)
    asked = {**settings.plain(), "which": which, "heads": heads, "partial": partial, "baselines": not no_baselines}
    path = record_evaluation(weights, "linear-probe", settings=asked, result=found.result, correct=found.correct)
    if path is not None and not json:
        console.note(f"Recorded in {path}.")
