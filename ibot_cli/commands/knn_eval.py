"""`ibot knn-eval`: how good the features are, beside baselines that say what the number means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ibot_cli import console
from ibot_cli.errors import UsageError
from ibot_cli.options import Device, Heads, Json, LabelledData, NoBaselines, WeightsArgument, Workers

if TYPE_CHECKING:
    from ibot_cli.evaluate.knn import KnnResult


def knn_eval(
    weights: WeightsArgument,
    data: LabelledData,
    k: Annotated[str, typer.Option("--k", metavar="K,K,...", help="Numbers of neighbours.")] = "10,20,100,200",
    temperature: Annotated[float, typer.Option(metavar="T", help="Votes weigh exp(similarity / T).")] = 0.07,
    json: Json = False,
    no_baselines: NoBaselines = False,
    device: Device = None,
    workers: Workers = None,
    heads: Heads = None,
) -> None:
    """Classify images by their nearest neighbours in feature space.

    Beside the result stand the same network with random weights and raw pixels, so that a number means something.
    """
    ks = _positive_integers(k)
    if temperature <= 0:
        raise UsageError(f"--temperature {temperature} is not above 0.", "The published value is 0.07.")
    from ibot_cli.evaluate.features import default_workers
    from ibot_cli.evaluate.protocol import evaluate_knn
    from ibot_cli.progress import stage_bars
    from ibot_cli.train.machine import choose_device
    from ibot_cli.weights.load import load_weights

    chosen = choose_device(None if device == "auto" else device)
    loaded = load_weights(weights, heads=heads)
    with stage_bars() as progress:
        result = evaluate_knn(
            loaded,
            data,
            ks=ks,
            temperature=temperature,
            baselines=not no_baselines,
            device=chosen,
            workers=default_workers(chosen) if workers is None else workers,
            progress=progress,
        )
    _show(result)
    if json:
        console.emit_json(result)


def _positive_integers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal() or int(part) < 1]
    if wrong:
        raise UsageError(f"--k {text}: {wrong[0]!r} is not a positive whole number.", "Write for example --k 10,20.")
    return [int(part) for part in parts]


def _show(result: KnnResult) -> None:
    """The table for people, on stderr: the result beside its baselines."""
    rows = [("this network", str(k), f"{top1:.2%}") for k, top1 in result.per_k.items()]
    if result.baseline_random is not None and result.baseline_random_per_seed is not None:
        seeds = len(result.baseline_random_per_seed)
        rows.append((f"random weights, mean of {seeds} seeds", str(result.k), f"{result.baseline_random:.2%}"))
    if result.baseline_pixels is not None:
        rows.append(("raw pixels, 32 x 32", str(result.k), f"{result.baseline_pixels:.2%}"))
    console.note(f"k-NN on {result.data}: {result.weights}")
    console.table(["Features", "k", "Top-1"], rows, right=["k", "Top-1"], keep=["k", "Top-1"])
    console.note(f"{result.split} {result.num_classes} classes.")
    for text in result.notes:
        console.warn(text)
