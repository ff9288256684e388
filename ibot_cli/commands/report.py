"""`ibot report`: one offline HTML page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibot_cli import console
from ibot_cli.errors import UsageError
from ibot_cli.options import Device, Json, NoCache, Seed, Which, Workers


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The file; default RUN/report.html.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Images to show, where the run's own have moved.", show_default=False),
    ] = None,
    no_samples: Annotated[
        bool, typer.Option("--no-samples", help="Only what the run recorded; the network is not loaded.")
    ] = False,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Heading; default the run's name.", show_default=False)
    ] = None,
    json: Json = False,
    which: Which = "teacher",
    seed: Seed = 0,
    no_cache: NoCache = False,
    device: Device = None,
    workers: Workers = None,
) -> None:
    """Write what is known about a run into one HTML file that needs no network.

    Key numbers and a verdict in words, training curves, evaluations beside their baselines, what the network sees in
    sample images, the data, the settings that differ from the preset, and the commands that repeat it all. Nothing of
    the run is changed.
    """
    if no_samples and data is not None:
        raise UsageError("--no-samples shows no images, so --data has no use.", "Leave one of them out.")
    from ibot_cli.evaluate.features import default_workers
    from ibot_cli.progress import stage_bars
    from ibot_cli.train.machine import choose_device
    from ibot_cli.visualize.report.report import write_report
    from ibot_cli.visualize.report.samples.options import SampleOptions

    samples = None
    if not no_samples:
        chosen = choose_device(None if device == "auto" else device)
        threads = default_workers(chosen) if workers is None else workers
        samples = SampleOptions(data=data, which=which, device=chosen, workers=threads, cache=not no_cache, seed=seed)
    with stage_bars() as progress:
        written = write_report(run, out=out, title=title, samples=samples, progress=progress)
    for problem in written.problems:
        console.warn(problem)
    console.note(f"Report: {written.path} ({written.size / 1e6:.1f} MB)")
    if json:
        console.emit_json(written)
