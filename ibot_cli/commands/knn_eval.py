"""`ibot knn-eval`: how good the features are, beside baselines that say what the number means."""

from __future__ import annotations

from typing import Annotated

import typer


def knn_eval(
    weights: Annotated[
        str, typer.Argument(metavar="WEIGHTS", help="A run directory, a checkpoint, or timm:NAME.", show_default=False)
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Labelled images: a folder with class sub-folders (train/ and val/ inside are used), or "
            "builtin:digits.",
            show_default=False,
        ),
    ],
    k: Annotated[str, typer.Option("--k", metavar="K,K,...", help="Numbers of neighbours.")] = "10,20,100,200",
    temperature: Annotated[float, typer.Option(metavar="T", help="Votes weigh exp(similarity / T).")] = 0.07,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="Skip random weights and raw pixels.")] = False,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:N or auto.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Loader processes; 0 loads in the main process.", min=0)
    ] = None,
) -> None:
    """Classify images by their nearest neighbours in feature space.

    Beside the result stand the same network with random weights and raw pixels, so that a number means something.
    """
    from ibot_cli.evaluate.knn import evaluate  # type: ignore[attr-defined, unused-ignore]

    evaluate(
        weights=weights,
        data=data,
        k=k,
        temperature=temperature,
        json=json,
        baselines=not no_baselines,
        device=device,
        workers=workers,
    )
