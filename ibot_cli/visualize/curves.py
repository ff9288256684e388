"""Charts of shares, or of other quantities: light, legible without colour, drawn without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ibot_cli.durable import write_atomically
from ibot_cli.errors import UsageError
from ibot_cli.visualize.drawing import Drawing, Label, Line, Mark, Point, Shape, pixels, svg

COLOURS = ("#1f6fb4", "#c2571a", "#2e8b57", "#7d4fa3", "#b0344d", "#4a5568")
SUFFIXES = (".svg", ".png")
WIDTH, HEIGHT = 760, 330
_LEFT, _TOP, _BOTTOM, _EDGE = 56, 46, 46, 14
_GRID, _AXIS, _INK = "#e3e6ea", "#9aa1ab", "#30343a"
_LABEL_GAP, _LABEL_HEIGHT, _SYMBOL = 12, 17, 13
_CHARACTER = 7.3  # of 13 px text, on average; only the width of the margin depends on it
_LONGEST = 30
_FEW = 25
_LEAST_SPAN = 0.05  # a flat line is not blown up to noise


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: Shown at its end.
        points: (x, value), ascending in x; at least one.
    """

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Chart:
    """Curves on common axes; values are shares, from 0 to 1, unless there is a unit.

    Attributes:
        title: Above the chart: what the values are.
        curves: At least one.
        x_name: Below the axis.
        unit: Of the values, which are then at least 0; None for shares, shown in percent.
    """

    title: str
    curves: Sequence[Curve]
    x_name: str = "epochs"
    unit: str | None = None


@dataclass(frozen=True)
class _Frame:
    """Where values lie on the page."""

    top: float
    right: float
    x_ticks: tuple[float, ...]
    x_last: float
    y_ticks: tuple[float, ...]

    @property
    def bottom(self) -> float:
        return self.top + HEIGHT - _TOP - _BOTTOM

    def at(self, x: float, value: float) -> Point:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        across = (x - self.x_ticks[0]) / (self.x_last - self.x_ticks[0])
        up = (value - low) / (high - low)
        return _LEFT + across * (self.right - _LEFT), self.bottom - up * (self.bottom - self.top)


def draw(charts: Sequence[Chart]) -> Drawing:
    """The charts, one below the other, with the same left and right edge."""
    longest = max(len(_end_text(chart, curve)) for chart in charts for curve in chart.curves)
    right = WIDTH - _EDGE - _LABEL_GAP - _SYMBOL - longest * _CHARACTER
    marks = [mark for place, chart in enumerate(charts) for mark in _chart(chart, place * HEIGHT, right)]
    return Drawing(WIDTH, HEIGHT * len(charts), marks)


def check_picture_path(path: Path) -> None:
    """Refuse a picture that could not be written, before any work is done.

    Raises:
        UsageError: The ending is neither .svg nor .png, or the directory does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path} is neither .svg nor .png.", "Give the picture one of these endings.")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} does not exist.", "Make the directory first.")
    if path.is_dir():
        raise UsageError(f"{path} is a directory.", "Name a file.")


def write_picture(path: Path, charts: Sequence[Chart]) -> None:
    """Draw the charts into a file, atomically.

    Raises:
        UsageError: As `check_picture_path`.
    """
    check_picture_path(path)
    drawing = draw(charts)
    if path.suffix.lower() == ".svg":
        content = svg(drawing).encode()
        write_atomically(path, lambda file: file.write(content))
    else:
        image = pixels(drawing)
        write_atomically(path, lambda file: image.save(file, format="PNG"))


def ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """Round numbers in even steps of 1, 2 or 5 times a power of ten that enclose `low` to `high`; two at least."""
    raw = max(high - low, abs(high) * 1e-3, 1e-6) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return tuple(round(number * step, digits) for number in range(first, max(last, first + 1) + 1))


def _chart(chart: Chart, top: int, right: float) -> list[Mark]:
    values = [value for curve in chart.curves for _, value in curve.points]
    places = [x for curve in chart.curves for x, _ in curve.points]
    # from 0 on, unless everything happens far above it
    low = min(values) if min(values) > 0.5 and chart.unit is None else 0.0
    y_ticks = ticks(low, max(values) if chart.unit else max(max(values), low + _LEAST_SPAN))
    x_ticks, x_last = ticks(min(0.0, *places), max(places), 7), max(*places, 1.0)
    frame = _Frame(top + _TOP, right, tuple(x for x in x_ticks if x <= x_last), x_last, y_ticks)
    marks: list[Mark] = [Label(_LEFT, top + 24, chart.title, colour=_INK, size=15), *_axes(frame, chart)]
    for number, curve in enumerate(chart.curves):
        marks += _line(frame, curve, number)
    ends = _apart([frame.at(*curve.points[-1])[1] for curve in chart.curves], frame.bottom)
    for number, (curve, y) in enumerate(zip(chart.curves, ends, strict=True)):
        x = right + _LABEL_GAP + _SYMBOL / 2
        marks.append(Shape(_symbol(number, x, y), _colour(number)))
        marks.append(Label(x + _SYMBOL / 2 + 3, y + 4.5, _end_text(chart, curve), colour=_colour(number)))
    return marks


def _axes(frame: _Frame, chart: Chart) -> list[Mark]:
    marks: list[Mark] = []
    for value in frame.y_ticks:
        _, y = frame.at(frame.x_ticks[0], value)
        lowest = value == frame.y_ticks[0]
        marks.append(Line([(_LEFT, y), (frame.right, y)], _AXIS if lowest else _GRID))
        marks.append(Label(_LEFT - 8, y + 4, _tick_text(chart, value, frame.y_ticks), "end"))
    for x in frame.x_ticks:
        place, _ = frame.at(x, frame.y_ticks[0])
        marks.append(Line([(place, frame.bottom), (place, frame.bottom + 4)], _AXIS))
        marks.append(Label(place, frame.bottom + 18, f"{x:,g}", "middle"))
    return [*marks, Label((_LEFT + frame.right) / 2, frame.bottom + 36, chart.x_name, "middle")]


def _line(frame: _Frame, curve: Curve, number: int) -> list[Mark]:
    colour = _colour(number)
    points = [frame.at(*point) for point in curve.points]
    marks: list[Mark] = [Line(points, colour, 2)] if len(points) > 1 else []
    marked = points if len(points) <= _FEW else points[-1:]
    return marks + [Shape(_symbol(number, *point), colour) for point in marked]


def _symbol(number: int, x: float, y: float) -> list[Point]:
    """Disc, square, triangle, diamond and so on: tells the lines apart without colour."""
    corners, turn, size = ((24, 0.0, 4.0), (4, 0.25, 5.2), (3, 0.5, 5.8), (4, 0.0, 5.6))[number % 4]
    angles = [2 * math.pi * (corner / corners) + turn * math.pi for corner in range(corners)]
    return [(x + size * math.sin(angle + math.pi / 2), y + size * math.cos(angle + math.pi / 2)) for angle in angles]


def _apart(places: Sequence[float], lowest: float) -> list[float]:
    """The places moved up or down just so far that the labels do not cover each other, in the order they came."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved: list[float] = []
    for index in order:
        moved.append(max(places[index], moved[-1] + _LABEL_HEIGHT if moved else -math.inf))
    limit = lowest
    for place in reversed(range(len(moved))):
        moved[place] = min(moved[place], limit)
        limit = moved[place] - _LABEL_HEIGHT
    return [moved[order.index(index)] for index in range(len(places))]


def _end_text(chart: Chart, curve: Curve) -> str:
    name = curve.name if len(curve.name) <= _LONGEST else "..." + curve.name[3 - _LONGEST :]
    last = curve.points[-1][1]
    return f"{name} {last:.1%}" if chart.unit is None else f"{name} {last:.3g} {chart.unit}"


def _tick_text(chart: Chart, value: float, among: Sequence[float]) -> str:
    return _percent(value, among) if chart.unit is None else f"{value:,g}"


def _percent(value: float, among: Sequence[float]) -> str:
    whole = all(abs(tick * 100 - round(tick * 100)) < 1e-6 for tick in among)
    return f"{value:.0%}" if whole else f"{value:.1%}"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
