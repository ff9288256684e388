"""Draws the demonstration's curve: online k-NN over epochs.

    python benchmarks/digits_curve.py RUN [RUN ...] --out docs/figures/digits_curve.svg

Every RUN is a run directory of the `digits` preset (one per seed). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ibot_cli.runs.metrics import MetricsLog
from ibot_cli.visualize.curves import Chart, Curve, write_picture

TITLE = "k-NN accuracy (k = 20) on held-out training digits"


def points(run: Path) -> list[tuple[float, float]]:
    """(epochs, k-NN accuracy on held-out training digits)."""
    records = MetricsLog(run / "metrics.jsonl").read()
    return [(r["epochs_done"], r["knn_accuracy"]) for r in records if r.get("knn_accuracy") is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/figures/digits_curve.svg"))
    arguments = parser.parse_args()
    curves = [Curve(run.name, points(run)) for run in arguments.runs]
    write_picture(arguments.out, [Chart(TITLE, curves)])
    print(json.dumps({"out": str(arguments.out), "final": {curve.name: curve.points[-1][1] for curve in curves}}))


if __name__ == "__main__":
    main()
