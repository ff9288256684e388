"""`ibot compare`: recorded evaluations of runs side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ibot_cli import console
from ibot_cli.errors import UsageError
from ibot_cli.options import Json


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)],
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout instead of a table.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also draw accuracies over epochs into FILE.svg or FILE.png.", show_default=False
        ),
    ] = None,
) -> None:
    """Show what the evaluations of one run or of several found, side by side.

    Every evaluation of a run is recorded in its evaluations.jsonl. Only figures of the same data and settings stand in
    one column; differences have confidence intervals, paired where both runs judged the same images.
    """
    if json and csv:
        raise UsageError("--json and --csv both want stdout.", "Choose one.")
    repeated = [str(run) for place, run in enumerate(runs) if run.resolve() in [r.resolve() for r in runs[:place]]]
    if repeated:
        raise UsageError(f"{repeated[0]} is given twice.", "Name each run once.")
    from ibot_cli import compare_view
    from ibot_cli.evaluate import compare as library
    from ibot_cli.visualize import curves
    from ibot_cli.visualize.run_curves import charts_of

    if plot is not None:
        curves.check_picture_path(plot)
    found = library.compare(runs, allow_empty=plot is not None)
    if json:
        console.emit_json(found)
    elif csv:
        sys.stdout.write(compare_view.as_csv(found))
    else:
        compare_view.show(found)
    if plot is not None:
        curves.write_picture(plot, charts_of(found.runs, runs))
        console.note(f"Curves: {plot}")
