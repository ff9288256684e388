"""The section of evaluations: the newest of each kind beside random weights and raw pixels, judged in words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ibot_cli.errors import RunError
from ibot_cli.evaluate.compare import compare
from ibot_cli.evaluate.comparison import BASELINES, Cell, Column
from ibot_cli.visualize.pages.numbers import NOTHING, moment, number, percent
from ibot_cli.visualize.report.record import RunRecord
from ibot_cli.visualize.report.section import Section

_COUNTS = ("accuracy", "correct", "num_test")


@dataclass(frozen=True)
class Standing:
    """How a figure stands to its baselines.

    Attributes:
        tone: `good`, `warn`, `bad`, or "" without a baseline.
        words: The same in words.
    """

    tone: str
    words: str


@dataclass(frozen=True)
class Evaluated:
    """The evaluations of a run.

    Attributes:
        columns: One per measure, data and settings; each has a single cell.
        notes: What the reader should know.
        data: What the run was trained on.
    """

    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    data: str

    def find(self, *measures: str) -> tuple[Column, Cell] | None:
        """The first of these measures that was taken: on the run's own images if it was, and the newest of those."""
        for measure in measures:
            found = [(c, cell) for c in self.columns if c.measure == measure for cell in c.cells if cell is not None]
            if found:
                return max(found, key=lambda pair: (self._own(pair[0]), pair[1].time))
        return None

    def _own(self, column: Column) -> bool:
        """Whether it was measured on the run's images; a path may have been given in another way."""
        return Path(column.data).name == Path(self.data).name


def evaluated(run: RunRecord) -> Evaluated:
    """What `ibot compare RUN` tells; damaged records are a note."""
    data = str(run.data.get("data", ""))
    try:
        found = compare([run.path], allow_empty=True)
    except RunError as error:
        return Evaluated((), (error.message,), data)
    # without any evaluation the section says so itself
    return Evaluated(found.columns, found.notes if run.evaluations else (), data)


def standing(cell: Cell) -> Standing:
    """Against each baseline: above it, below it, or, where the interval holds it, not told apart from it."""
    baselines = cell.baselines
    if not baselines:
        return Standing("", "no baseline was measured")
    below = [name for name, value in baselines.items() if cell.side(value) < 0]
    level = [name for name, value in baselines.items() if cell.side(value) == 0]
    if below:
        return Standing("bad", f"below {' and '.join(below)}")
    if level:
        return Standing("warn", f"not told apart from {' and '.join(level)}")
    return Standing("good", f"above {' and '.join(baselines)}")


def evaluations_section(run: RunRecord, found: Evaluated) -> Section:
    """A row per measure, and what the baselines make of it."""
    cells = [(column, cell) for column in found.columns for cell in column.cells if cell is not None]
    rows = [_row(column, cell) for column, cell in cells]
    behind = [(column, cell, standing(cell)) for column, cell in cells]
    return Section(
        id="evaluations",
        title="Evaluations",
        template="report/evaluations.html",
        values={
            "rows": rows,
            "baselines": _columns([cell for _, cell in cells]),
            "tuned": any(column.command == "finetune" for column, _ in cells),
            "behind": [_sentence(column, cell, each) for column, cell, each in behind if each.tone in ("warn", "bad")],
            "weights": list(dict.fromkeys(cell.weights for _, cell in cells)),
            "notes": found.notes,
            "details": [_details(column, cell) for column, cell in cells],
            "example": shlex.join(["ibot", "knn-eval", str(run.path), found.data or "DATA"]),
            "hardest": _hardest(run),
        },
    )


def _columns(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Field and heading of each baseline; that of few measures only where one of them was taken."""
    shown = [
        field for field in BASELINES if field != "same_place" or any(cell.same_place is not None for cell in cells)
    ]
    return [(field, BASELINES[field].removeprefix("the ").capitalize()) for field in shown]


def _row(column: Column, cell: Cell) -> dict[str, object]:
    each = standing(cell)
    return {
        "title": column.title,
        "value": _shown(cell.value, column),
        "interval": NOTHING if cell.interval is None else " to ".join(f"{x * 100:.1f}" for x in cell.interval) + " %",
        "baselines": {field: _shown(getattr(cell, field), column) for field in BASELINES},
        "tone": each.tone,
        "words": each.words,
    }


def _sentence(column: Column, cell: Cell, each: Standing) -> str:
    baselines = ", ".join(f"{name} {_shown(value, column)}" for name, value in cell.baselines.items())
    return f"{column.title} on {column.data}: {_shown(cell.value, column)} is {each.words} ({baselines})."


def _details(column: Column, cell: Cell) -> tuple[str, ...]:
    settings = ", ".join(f"{name} {value}" for name, value in column.settings.items())
    images = NOTHING if cell.total is None else f"{cell.total:,}"
    step = NOTHING if cell.step is None else f"{cell.step:,}"
    return column.title, column.data, images, step, moment(cell.time), settings


def _shown(value: float | None, column: Column) -> str:
    return percent(value, 2) if column.percent else number(value)


def _hardest(run: RunRecord) -> Sequence[tuple[str, str, str]]:
    """The classes of the newest k-NN evaluation with the fewest right answers: name, share, test images."""
    newest = [record["result"].get("per_class") for record in run.evaluations if record["command"] == "knn-eval"]
    classes = [
        each
        for each in (newest[-1] if newest and isinstance(newest[-1], list) else ())
        if isinstance(each, dict) and all(isinstance(each.get(name), int | float) for name in _COUNTS)
    ]
    worst = sorted(classes, key=lambda each: each["accuracy"])[:10]
    return [(str(c.get("name")), f"{c['correct']:,} of {c['num_test']:,}", percent(c["accuracy"])) for c in worst]
