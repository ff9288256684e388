"""Line charts as inline SVG that takes the page's colours, light or dark, and stays legible on a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ibot_cli.visualize.curves import ticks
from ibot_cli.visualize.report.metrics import Series
from ibot_cli.visualize.report.series import at, smoothed, thinned

WIDTH, HEIGHT = 440, 220  # a phone shows it at about four fifths of this, a desk somewhat larger
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 432, 10, 186
_FEW, _ROWS, _COLOURS = 12, 11, 6
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
_CROWDED = 100  # points from which on a line of single steps is smoothed


@dataclass(frozen=True)
class Curve:
    """A line.

    Attributes:
        name: For the legend.
        series: Values by epoch.
        rough: Whether single values scatter, so that their average is drawn over them.
    """

    name: str
    series: Series
    rough: bool = False


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Lines over epochs.

    Attributes:
        title: What is shown.
        about: What to see in it, as a sentence or two.
        curves: At least one; those without a value are left out.
        show: How a value is written.
        bounds: Least extent of the vertical axis; values beyond it extend it.
        limits: Heights to mark, with what they are.
        span: Least extent, so that a flat line is not blown up to noise.
        most: Largest value that there can be.
        logarithmic: Whether values spread over powers of ten.
    """

    title: str
    about: str
    curves: Sequence[Curve]
    show: Callable[[float], str]
    bounds: tuple[float | None, float | None] = (None, None)
    limits: Sequence[tuple[float, str]] = ()
    span: float = 0.0
    most: float = math.inf
    logarithmic: bool = False


@dataclass(frozen=True)
class Legend:
    """What a line is: name, its last value, colour and dashes."""

    name: str
    last: str
    colour: int
    dashes: str


@dataclass(frozen=True)
class Drawn:
    """A chart for a template.

    Attributes:
        title: See `LineChart`.
        about: See `LineChart`.
        svg: The picture.
        legend: Its lines.
        heads: Of the table that says the same.
        rows: Of that table.
    """

    title: str
    about: str
    svg: Markup
    legend: tuple[Legend, ...]
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Axes:
    last: float
    low: float
    high: float
    logarithmic: bool

    def points(self, series: Series) -> str:
        """The line as SVG wants it."""
        values = np.clip(series.values, self.low, self.high)
        low, high = self.low, self.high
        if self.logarithmic:
            values, low, high = np.log10(values), math.log10(low), math.log10(high)
        across = _LEFT + series.steps / self.last * (_RIGHT - _LEFT)
        down = _BOTTOM - (values - low) / (high - low) * (_BOTTOM - _TOP)
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across.tolist(), down.tolist(), strict=True))

    def height(self, value: float) -> float:
        """Of a horizontal line."""
        return float(self.points(Series(np.zeros(1), np.array([value]))).partition(",")[2])


def draw(chart: LineChart, number: int) -> Drawn | None:
    """The chart; None where no line has a value.

    Args:
        chart: What to draw.
        number: Unique on the page, for ids.
    """
    curves = [curve for curve in chart.curves if len(curve.series)]
    if not curves:
        return None
    lines = [smoothed(c.series) if c.rough and len(c.series) > _CROWDED else c.series for c in curves]
    axes, marks = _axes(chart, curves, lines)
    parts = _grid(axes, marks, chart)
    for place, (curve, line) in enumerate(zip(curves, lines, strict=True)):
        if line is not curve.series:
            parts.append(
                Markup('<polyline class="raw c{}" points="{}"/>').format(
                    place % _COLOURS, axes.points(thinned(curve.series))
                )
            )
    parts += [_line(axes, line, place) for place, line in enumerate(lines)]
    parts += _limits(axes, chart)
    rows = _rows(chart, lines, axes.last)
    return Drawn(
        title=chart.title,
        about=chart.about,
        svg=_picture(chart, curves, lines, parts, number),
        legend=tuple(
            Legend(curve.name, chart.show(line.values[-1]), place % _COLOURS, _DASHES[place % len(_DASHES)])
            for place, (curve, line) in enumerate(zip(curves, lines, strict=True))
        ),
        heads=("Epochs", *(curve.name for curve in curves)),
        rows=rows,
    )


def _axes(chart: LineChart, curves: Sequence[Curve], lines: Sequence[Series]) -> tuple[_Axes, Sequence[float]]:
    """Wide enough for every line, and for all but the rarest single values behind them."""
    drawn = [line.values for line in lines]
    behind = [np.percentile(curve.series.values, (0.5, 99.5)) for curve in curves if curve.rough]
    every = np.concatenate([*drawn, *behind])
    every = np.minimum(every, chart.most)  # which an entropy may exceed by a rounding error
    low, high = float(every.min()), float(every.max())
    last = max(max(float(line.steps[-1]) for line in lines), 1e-9)
    if chart.logarithmic and low > 0:
        first, end = math.floor(math.log10(low)), math.ceil(math.log10(high) + 1e-9)
        powers = [10.0**power for power in range(first, max(end, first + 1) + 1)]
        return _Axes(last, powers[0], powers[-1], True), powers
    bounds = [value for value in chart.bounds if value is not None]
    low, high = min([low, *bounds]), max([high, *bounds])
    missing = max(chart.span - (high - low), 0.0)
    high = max(high, min(high + missing / 2, chart.most))
    marks = ticks(min(low, high - chart.span), high, 4)
    return _Axes(last, marks[0], marks[-1], False), marks


def _grid(axes: _Axes, marks: Sequence[float], chart: LineChart) -> list[Markup]:
    parts = []
    shown = marks[:: 1 + len(marks) // 8]
    texts = [chart.show(value) for value in shown]
    if all(text.endswith(".00") for text in texts):
        texts = [text.removesuffix(".00") for text in texts]
    for value, label in zip(shown, texts, strict=True):
        y = axes.height(value)
        parts.append(Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(_LEFT, y, _RIGHT, y))
        parts.append(Markup('<text x="{}" y="{:.1f}" class="end">{}</text>').format(_LEFT - 6, y + 4.5, label))
    for epoch in (value for value in ticks(0, axes.last, 6) if value <= axes.last * 1.0001):
        x = _LEFT + epoch / axes.last * (_RIGHT - _LEFT)
        anchor = "end" if x > _RIGHT - 12 else "middle"
        parts.append(
            Markup('<text x="{:.1f}" y="{}" class="{}">{}</text>').format(x, _BOTTOM + 18, anchor, f"{epoch:,g}")
        )
    middle = (_LEFT + _RIGHT) / 2
    return [*parts, Markup('<text x="{:.0f}" y="{}" class="middle">epochs</text>').format(middle, HEIGHT - 2)]


def _limits(axes: _Axes, chart: LineChart) -> list[Markup]:
    parts = []
    for value, text in chart.limits:
        if axes.low <= value <= axes.high:
            y = axes.height(value)
            above = y - 4 if y > _TOP + 14 else y + 14
            parts.append(
                Markup('<line class="limit" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(_LEFT, y, _RIGHT, y)
            )
            parts.append(Markup('<text x="{}" y="{:.1f}" class="end small">{}</text>').format(_RIGHT, above, text))
    return parts


def _line(axes: _Axes, line: Series, place: int) -> Markup:
    thin = thinned(line)
    points, colour = axes.points(thin), place % _COLOURS
    dashes = Markup(' stroke-dasharray="{}"').format(dash) if (dash := _DASHES[place % len(_DASHES)]) else ""
    drawn = Markup('<polyline class="line c{}"{} points="{}"/>').format(colour, dashes, points)
    if len(thin) <= _FEW:
        for point in points.split():
            x, _, y = point.partition(",")
            drawn += Markup('<circle class="dot c{}" cx="{}" cy="{}" r="3"/>').format(colour, x, y)
    return drawn


def _picture(
    chart: LineChart, curves: Sequence[Curve], lines: Sequence[Series], parts: Sequence[Markup], number: int
) -> Markup:
    told = "; ".join(
        f"{curve.name} from {chart.show(line.values[0])} to {chart.show(line.values[-1])}"
        for curve, line in zip(curves, lines, strict=True)
    )
    name = f"chart-{number}"
    return Markup(
        '<svg class="chart" role="img" viewBox="0 0 {} {}" aria-labelledby="{}-title {}-text">'
        '<title id="{}-title">{}</title><desc id="{}-text">{}.</desc>{}</svg>'
    ).format(WIDTH, HEIGHT, name, name, name, chart.title, name, told, Markup("").join(parts))


def _rows(chart: LineChart, lines: Sequence[Series], last: float) -> tuple[tuple[str, ...], ...]:
    """The values of the lines at a few epochs."""
    first = min(float(line.steps[0]) for line in lines)
    every = np.unique(np.concatenate([line.steps for line in lines]))
    places = every if len(every) <= _ROWS else np.unique(np.append(np.linspace(first, last, _ROWS).round(), last))
    columns = [at(line, places) for line in lines]
    return tuple(
        (f"{place:,.4g}", *("–" if value is None else chart.show(value) for value in values))
        for place, *values in zip(places.tolist(), *columns, strict=True)
    )
