"""Draws the demonstration's curve: online k-NN over epochs, beside the untrained network.

    python benchmarks/digits_curve.py RUN [RUN ...] --out docs/figures/digits_curve.svg

Every RUN is a run directory of the `digits` preset (one per seed). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 28, 44
COLOURS = ["#1f6fb4", "#c2571a", "#2e8b57", "#7d4fa3"]


def points(run: Path) -> list[tuple[int, float]]:
    """(epochs, k-NN accuracy on held-out training digits)."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(r["epochs_done"], r["knn_accuracy"]) for r in records if r.get("knn_accuracy") is not None]


def place(epoch: float, value: float, last: int) -> tuple[float, float]:
    """Pixels of a value."""
    x = LEFT + (WIDTH - LEFT - RIGHT) * epoch / last
    return x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - value)


def text(x: float, y: float, content: str, anchor: str = "start", colour: str = "#444") -> str:
    """An SVG label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{content}</text>'


def grid(last: int) -> list[str]:
    """Horizontal lines with their values, and the ends of the axis."""
    parts = []
    for tenth in range(0, 11, 2):
        x, y = place(0, tenth / 10, last)
        parts.append(f'<line x1="{x}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(text(x - 8, y + 4, f"{tenth / 10:.1f}", "end"))
    for epoch in (0, last // 2, last):
        x, y = place(epoch, 0, last)
        parts.append(text(x, y + 18, str(epoch), "middle"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "epochs", "middle"))
    parts.append(text(LEFT, 16, "k-NN accuracy (k = 20) on held-out training digits"))
    return parts


def draw(curves: dict[str, list[tuple[int, float]]]) -> str:
    """The picture."""
    last = max(epoch for curve in curves.values() for epoch, _ in curve)
    parts = grid(last)
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join("{:.1f},{:.1f}".format(*place(epoch, value, last)) for epoch, value in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(text(WIDTH - RIGHT, 200 + 18 * number, f"{name}: {curve[-1][1]:.3f} at the end", "end", colour))
    style = "font-family:sans-serif;font-size:13px;background:#fff"
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    white = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} style="{style}">{white}{"".join(parts)}</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/figures/digits_curve.svg"))
    arguments = parser.parse_args()
    curves = {run.name: points(run) for run in arguments.runs}
    arguments.out.write_text(draw(curves))
    print(json.dumps({"out": str(arguments.out), "final": {name: curve[-1][1] for name, curve in curves.items()}}))


if __name__ == "__main__":
    main()
