"""How a comparison is told to people, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from ibot_cli import console
from ibot_cli.evaluate.comparison import BASELINES, Cell, Column, Comparison, Difference

NETWORK = "this network"
_FIELDS = {field: name.removeprefix("the ") for field, name in BASELINES.items()}
BEST, PLAIN = " *", "  "
NOTHING = "-"
_METHODS = {"paired": "the same images", "unpaired": "counts only", "none": NOTHING}
_CSV = (
    "run", "measure", "value", "low", "high", "images", "random_weights", "raw_pixels", "command", "data",
    "fingerprint", "settings", "weights", "step", "time", "same_place",
)  # fmt: skip


def show(found: Comparison) -> None:
    """The tables, on stderr: one run beside its baselines, or several side by side and their differences."""
    if len(found.runs) == 1:
        _one_run(found)
    else:
        _side_by_side(found)
        _differences(found)
    if found.columns:
        data = ", ".join(dict.fromkeys(column.data for column in found.columns))
        best = "the best of each row" + (", where the interval decides it" if len(found.runs) == 1 else "")
        console.note(f"Data: {data}. * marks {best}; intervals (95 %) are for the choice of test images.")
    for text in found.notes:
        console.warn(text)


def as_csv(found: Comparison) -> str:
    """A line per run and measure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV)
    for column in found.columns:
        settings = " ".join(f"{name}={value}" for name, value in column.settings.items())
        for run, cell in zip(found.runs, column.cells, strict=True):
            if cell is not None:
                low, high = cell.interval or (None, None)
                numbers = (cell.value, low, high, cell.total, cell.random, cell.pixels)
                origin = (column.command, column.data, column.fingerprint, settings, cell.weights, cell.step, cell.time)
                writer.writerow((run, column.title, *numbers, *origin, cell.same_place))
    return out.getvalue()


def _one_run(found: Comparison) -> None:
    rows, fields = [], _fields(found)
    for column in found.columns:
        cell = column.cells[0]
        if cell is not None:
            own, *others = _starred(cell, fields, column.percent)
            rows.append((column.title, own, _interval(cell.interval), *others))
    heads = ["Measure", NETWORK, "95 % interval", *(_FIELDS[field] for field in fields)]
    console.note(f"{found.runs[0]}: {_only([c.cells[0] for c in found.columns])}")
    console.table(heads, rows, right=heads[1:], keep=heads[1:])


def _side_by_side(found: Comparison) -> None:
    """A row per measure, or per run where there are more runs than measures."""
    lines = [["Measure", *found.runs], *([column.title, *_run_cells(column)] for column in found.columns)]
    for field, name in _FIELDS.items():
        texts = [_range(column, field) for column in found.columns]
        if any(text != NOTHING for text in texts):
            lines = [[*line, text] for line, text in zip(lines, [name, *texts], strict=True)]
    if len(found.runs) > len(found.columns):
        lines = [list(line) for line in zip(*lines, strict=True)]
        lines[0][0] = "Run"
    console.table(lines[0], lines[1:], right=lines[0][1:])


def _differences(found: Comparison) -> None:
    if not found.differences:
        return
    rows = [
        (each.title, f"{each.run} less {each.reference}", _points(each), _span(each), _METHODS[each.method])
        for each in found.differences
    ]
    numbers = ["Difference", "95 % interval"]
    console.table(["Measure", "Runs", *numbers, "Judged on"], rows, right=numbers, keep=numbers)


def _run_cells(column: Column) -> list[str]:
    return [
        NOTHING + PLAIN
        if cell is None
        else _number(cell.value, column.percent) + (BEST if place in column.best else PLAIN)
        for place, cell in enumerate(column.cells)
    ]


def _fields(found: Comparison) -> list[str]:
    """The baselines that get a column; that of few measures only where one of them was taken."""
    cells = [cell for column in found.columns for cell in column.cells if cell is not None]
    return [field for field in _FIELDS if field != "same_place" or any(cell.same_place is not None for cell in cells)]


def _starred(cell: Cell, fields: Sequence[str], percent: bool) -> list[str]:
    """The figure and its baselines; none is marked while the interval holds the best baseline."""
    values = [cell.value, *(getattr(cell, field) for field in fields)]
    strongest = max(cell.baselines.values(), default=None)
    decided = strongest is not None and (cell.interval is None or cell.side(strongest) != 0)
    mark = max(value for value in values if value is not None) if decided else None
    return [NOTHING + PLAIN if v is None else _number(v, percent) + (BEST if v == mark else PLAIN) for v in values]


def _range(column: Column, field: str) -> str:
    """The baseline of all runs; it depends on the architecture, so it may be several."""
    cells = [cell for cell in column.cells if cell is not None]
    values = [value for value in (getattr(cell, field) for cell in cells) if value is not None]
    texts = list(dict.fromkeys(_number(value, column.percent) for value in sorted(values)))
    return " to ".join(dict.fromkeys((texts[0], texts[-1]))) if texts else NOTHING


def _number(value: float, percent: bool) -> str:
    return f"{value:.2%}" if percent else f"{value:.3f}"


def _interval(limits: tuple[float, float] | None) -> str:
    return NOTHING if limits is None else f"{limits[0] * 100:.1f} to {limits[1] * 100:.1f} %"


def _points(each: Difference) -> str:
    return f"{each.difference * 100:+.2f}" if each.percent else f"{each.difference:+.3f}"


def _span(each: Difference) -> str:
    return NOTHING if each.interval is None else f"{each.interval[0] * 100:+.2f} to {each.interval[1] * 100:+.2f}"


def _only(cells: Sequence[Cell | None]) -> str:
    return "; ".join(dict.fromkeys(cell.weights for cell in cells if cell is not None))
