"""Charts of what runs recorded: k-NN while pre-training and by checkpoint, accuracy while fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ibot_cli.errors import RunError
from ibot_cli.runs.evaluations import read_evaluations
from ibot_cli.runs.metrics import MetricsLog
from ibot_cli.visualize.curves import Chart, Curve
from ibot_cli.visualize.drawing import Point

ONLINE = "k-NN accuracy on held-out training images, while pre-training"
FINETUNING = "Fine-tuning: accuracy on held-out training images"


def charts_of(names: Sequence[str], runs: Sequence[Path]) -> list[Chart]:
    """Everything that the runs recorded over epochs; curves of different data or settings are in charts of their own.

    Args:
        names: Of the runs.
        runs: Their directories.

    Raises:
        RunError: Nothing was recorded over epochs.
    """
    metrics = [MetricsLog(run / "metrics.jsonl").read() for run in runs]
    charts = [
        Chart(title, curves)
        for title, field in ((ONLINE, "knn_accuracy"), (FINETUNING, "accuracy"))
        if (curves := _curves(names, [_points(records, field) for records in metrics]))
    ]
    charts += _by_checkpoint(names, runs)
    if not charts:
        raise RunError(
            f"Nothing was recorded over epochs in {' or '.join(map(str, runs))}, so there is no curve to draw.",
            "Pre-training records k-NN where the images have labels; for checkpoints run "
            f"`ibot knn-eval {runs[0]} DATA --checkpoints all`.",
        )
    return charts


def _points(records: Sequence[Mapping[str, Any]], field: str) -> list[Point]:
    return [(r["epochs_done"], r[field]) for r in records if r.get(field) is not None and "epochs_done" in r]


def _curves(names: Sequence[str], points: Sequence[Sequence[Point]]) -> list[Curve]:
    return [Curve(name, each) for name, each in zip(names, points, strict=True) if each]


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
