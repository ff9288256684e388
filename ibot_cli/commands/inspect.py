"""`ibot inspect`: what a weights file is, and whether it is any good."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from ibot_cli import console
from ibot_cli.errors import UsageError
from ibot_cli.options import Heads, Json, WeightsArgument


def inspect(
    weights: WeightsArgument,
    which: Annotated[
        Literal["teacher", "student"] | None,
        typer.Option(help="The network of a checkpoint that holds both; else the teacher.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Images to look at; else embedded ones.", show_default=False),
    ] = None,
    no_features: Annotated[
        bool, typer.Option("--no-features", help="Look at the tensors only; collapse is not seen then.")
    ] = False,
    config: Annotated[
        bool, typer.Option("--config", help="Print the configuration that is inside as YAML, and nothing else.")
    ] = False,
    json: Json = False,
    heads: Heads = None,
) -> None:
    """Say what a weights file is: layout, architecture, training, tensors, norms, and a verdict.

    The verdict is trained, random, collapsed, broken, incomplete or unclear.
    It does not change the exit status; scripts read verdict.state of --json.
    """
    if data is not None and no_features:
        raise UsageError("--data and --no-features exclude each other.", "Leave one of them out.")
    if config and (json or data is not None):
        raise UsageError("--config prints YAML and looks at no image.", "Leave out --json and --data.")
    from ibot_cli.evaluate.inspection.inspection import inspect_weights
    from ibot_cli.evaluate.inspection.record import configuration, record
    from ibot_cli.inspect_view import show
    from ibot_cli.progress import waiting

    if config:
        sys.stdout.write(configuration(weights, which, heads))
        return
    with waiting("looking at the weights"):
        found = inspect_weights(weights, which=which, heads=heads, data=data, features=not no_features)
    show(found)
    if json:
        console.emit_json(record(found))
