"""Charts of what runs recorded: k-NN while pre-training and by checkpoint, accuracy while fine-tuning."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from ibot_cli.errors import RunError
from ibot_cli.runs.evaluations import read_evaluations
from ibot_cli.runs.metrics import MetricsLog
from ibot_cli.visualize.curves import Chart, Curve

TITLES = {
    "knn_accuracy": "k-NN accuracy on held-out training images, while pre-training",
    "test/top1_accuracy": "Fine-tuning: accuracy on test images",
    "holdout/top1_accuracy": "Fine-tuning: accuracy on held-out training images",
}


def charts_of(names: Sequence[str], runs: Sequence[Path]) -> list[Chart]:
    """Everything that the runs recorded over epochs; curves of different data or settings are in charts of their own.

    Args:
        names: Of the runs.
        runs: Their directories.

    Raises:
        RunError: Nothing was recorded over epochs.
    """
    charts = [*_while_training(names, runs), *_by_checkpoint(names, runs)]
    if not charts:
        raise RunError(
            f"Nothing was recorded over epochs in {' or '.join(map(str, runs))}, so there is no curve to draw.",
            "Pre-training records k-NN where the images have labels; for checkpoints run "
            f"`ibot knn-eval {runs[0]} DATA --checkpoints all`.",
        )
    return charts


def _while_training(names: Sequence[str], runs: Sequence[Path]) -> list[Chart]:
    """A chart per measure and data set."""
    charts: dict[tuple[str, str], list[Curve]] = {}
    for name, run in zip(names, runs, strict=True):
        records = MetricsLog(run / "metrics.jsonl").read()
        for field, title in TITLES.items():
            points = [(r["epochs_done"], r[field]) for r in records if r.get(field) is not None and "epochs_done" in r]
            if points:
                charts.setdefault((title, _data(run)), []).append(Curve(name, points))
    titles = [title for title, _ in charts]
    return [
        Chart(title if titles.count(title) == 1 else f"{title}: {', '.join(c.name for c in curves)}", curves)
        for (title, _), curves in charts.items()
    ]


def _data(run: Path) -> str:
    """What tells the images of runs apart."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return str(json.loads((run / "data.json").read_text(encoding="utf-8")).get("fingerprint"))
    return ""


def _by_checkpoint(names: Sequence[str], runs: Sequence[Path]) -> list[Chart]:
    """A chart per data set and settings, with the newest curve of each run."""
    charts: dict[tuple[str, str], dict[str, Curve]] = {}
    for name, run in zip(names, runs, strict=True):
        for record in read_evaluations(run):
            points = [(point["epoch"], point["top1"]) for point in record["result"].get("curve") or ()]
            if record["command"] == "knn-eval" and len(points) > 1:
                result = record["result"]
                title = (
                    f"k-NN accuracy on {record['data']} by checkpoint, k = {result['k']}, T = {result['temperature']:g}"
                )
                charts.setdefault((title, str(record["fingerprint"])), {})[name] = Curve(name, points)
    return [Chart(title, list(curves.values())) for (title, _), curves in charts.items()]
