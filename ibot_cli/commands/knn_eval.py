"""`ibot knn-eval`: how good the features are, beside baselines that say what the number means."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from ibot_cli import console
from ibot_cli.errors import UsageError
from ibot_cli.options import (
    Device,
    Heads,
    Json,
    LabelledData,
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


def knn_eval(
    weights: WeightsArgument,
    data: LabelledData,
    k: Annotated[str, typer.Option("--k", metavar="K,K,...", help="Numbers of neighbours.")] = "10,20,100,200",
    temperature: Annotated[str, typer.Option(metavar="T,T,...", help="Votes weigh exp(similarity / T).")] = "0.07",
    checkpoints: Annotated[
        str | None,
        typer.Option(metavar="WHICH", help="A curve over a run: all, last:N, or steps.", show_default=False),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="List every class and what is confused.")] = False,
    exclude_duplicates: Annotated[
        bool, typer.Option("--exclude-duplicates", help="Leave out test images that are training images too.")
    ] = False,
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
    """Classify images by their nearest neighbours in feature space.

    Beside the result stand the same network with random weights and raw pixels, so that a number means something.
    """
    ks, temperatures = positive_integers("--k", k, "10,20"), _positive_numbers(temperature)
    from ibot_cli.evaluate.features import default_workers
    from ibot_cli.evaluate.knn.curve import load_stops
    from ibot_cli.evaluate.knn.protocol import evaluate_knn
    from ibot_cli.evaluate.knn.table import show
    from ibot_cli.evaluate.precision import check_precision
    from ibot_cli.progress import stage_bars
    from ibot_cli.runs.checkpoint_choice import choose_checkpoints
    from ibot_cli.runs.evaluations import record_evaluation
    from ibot_cli.train.machine import choose_device
    from ibot_cli.weights.load import load_weights

    check_precision(precision)
    chosen = choose_device(None if device == "auto" else device)
    paths = [] if checkpoints is None else choose_checkpoints(weights, checkpoints)
    loaded = load_weights(str(paths[-1]) if paths else weights, which=which, heads=heads, partial=partial)
    with stage_bars() as progress:
        found = evaluate_knn(
            loaded,
            data,
            ks=ks,
            temperatures=temperatures,
            baselines=not no_baselines,
            exclude_duplicates=exclude_duplicates,
            curve=load_stops(paths, which, partial=partial),
            precision=precision,
            cache=not no_cache,
            device=chosen,
            workers=default_workers(chosen) if workers is None else workers,
            seed=seed,
            progress=progress,
        )
    show(found.result, per_class=per_class)
    if json:
        console.emit_json(found.result)
    settings = {
        "k": ks,
        "temperature": temperatures,
        "checkpoints": checkpoints,
        "exclude_duplicates": exclude_duplicates,
        "precision": precision,
        "which": which,
        "seed": seed,
        "baselines": not no_baselines,
        "heads": heads,
        "partial": partial,
    }
    path = record_evaluation(weights, "knn-eval", settings=settings, result=found.result, correct=found.correct)
    if path is not None and not json:
        console.note(f"Recorded in {path}.")


def _positive_numbers(text: str) -> list[float]:
    def number(part: str) -> float:
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise UsageError(
                f"--temperature {text}: {part!r} is not a number above 0.",
                "The published value is 0.07; write for example --temperature 0.05,0.07,0.1.",
            )
        return value

    return [number(part.strip()) for part in text.split(",")]
