"""Recorded evaluations of runs side by side; only what was measured alike stands in one column."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibot_cli.errors import RunError
from ibot_cli.evaluate.comparison import Cell, Column, Comparison, Difference
from ibot_cli.evaluate.confidence import paired_difference, unpaired_difference, wilson
from ibot_cli.evaluate.measures import COMMANDS, Figure, figures_of, recipe_of, settings_of
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.runs.evaluations import correctness, read_evaluations

Record = Mapping[str, Any]
_SHORT_HASH = 8
_SHOWN = 6
_STEP = re.compile(r"^step-(\d+)(?:\.keep)?\.pt$")


@dataclass(frozen=True)
class _Found:
    """A figure and the record it comes from."""

    figure: Figure
    record: Record

    @property
    def key(self) -> tuple[str, ...]:
        return self.key_of(self.figure.measure)

    def key_of(self, measure: str) -> tuple[str, ...]:
        settings = [f"{name}={value}" for name, value in settings_of(self.record).items()]
        return (self.record["command"], measure, str(self.record["fingerprint"]), *settings)


def compare(runs: Sequence[Path], *, allow_empty: bool = False) -> Comparison:
    """The latest evaluation of each kind of every run, side by side.

    A kind is a measure on one data set. Figures stand in one column only when data and settings are the same; an
    earlier evaluation fills a column that another run has opened.

    Args:
        runs: Run directories.
        allow_empty: Whether runs without any evaluation give a comparison without columns.

    Raises:
        RunError: A path is no run, records are damaged, or no run was evaluated at all.
    """
    records = [read_evaluations(RunDirectory.open(path).path) for path in runs]
    names = _names(runs)
    found = [_folded([_Found(figure, record) for record in part for figure in figures_of(record)]) for part in records]
    if not any(found) and not allow_empty:
        raise RunError(
            f"No evaluation is recorded in {' or '.join(map(str, runs))}.",
            f"Evaluate first, for example: ibot knn-eval {runs[0]} DATA",
        )
    keys = dict.fromkeys(each.key for part in found for each in _latest(part))
    rows = [_by_key(part) for part in found]
    order = sorted(keys, key=lambda key: COMMANDS.index(key[0]))
    together = [[row.get(key) for row in rows] for key in order]
    titles = _titles(together)
    columns = tuple(_column(title, row) for title, row in zip(titles, together, strict=True))
    differences = [
        each for title, row in zip(titles, together, strict=True) for each in _differences(title, row, names)
    ]
    notes = [note for name, path, part, row in zip(names, runs, records, rows, strict=True)
             for note in _run_notes(name, path, part, [row[key] for key in order if key in row])]  # fmt: skip
    return Comparison(
        runs=names,
        columns=columns,
        differences=tuple(differences),
        notes=(*notes, *_column_notes(columns), *_recipe_notes(titles, together)),
    )


def _folded(found: Sequence[_Found]) -> list[_Found]:
    """The best training from scratch is the baseline of the same run's fine-tuning, where there is one."""
    scratch: dict[tuple[str, ...], float] = {}
    for each in found:
        if each.figure.random_of:
            key = each.key_of(each.figure.random_of)
            scratch[key] = max(each.figure.value, scratch.get(key, 0.0))
    tuned = {each.key for each in found} & scratch.keys()
    kept = []
    for each in found:
        if each.figure.random_of and each.key_of(each.figure.random_of) in tuned:
            continue
        if each.key in tuned:
            best = max(scratch[each.key], each.figure.random or 0.0)
            each = _Found(replace(each.figure, random=best), each.record)
        kept.append(each)
    return kept


def _latest(found: Sequence[_Found]) -> Iterator[_Found]:
    """The newest figure of each measure and data set."""
    return iter({(each.figure.measure, each.record["fingerprint"]): each for each in found}.values())


def _by_key(found: Sequence[_Found]) -> dict[tuple[str, ...], _Found]:
    """The newest of each column; baselines that it went without come from an earlier one, as they stay the same."""
    newest: dict[tuple[str, ...], _Found] = {}
    for each in found:
        figure, earlier = each.figure, newest.get(each.key)
        if earlier is not None:
            known = {name: getattr(figure, name) for name in ("random", "pixels")}
            missing = {name: getattr(earlier.figure, name) for name, value in known.items() if value is None}
            figure = replace(figure, **missing)
        newest[each.key] = _Found(figure, each.record)
    return newest


def _names(runs: Sequence[Path]) -> tuple[str, ...]:
    """The last part of each path, or as much as tells them apart."""
    short = [path.resolve().name for path in runs]
    return tuple(name if short.count(name) == 1 else str(path) for name, path in zip(short, runs, strict=True))


def _titles(together: Sequence[Sequence[_Found | None]]) -> list[str]:
    """The measure of each column, and in brackets what tells it from other columns of the same measure."""
    firsts = [next(each for each in row if each is not None) for row in together]
    titles = []
    for first in firsts:
        alike = [other for other in firsts if other.figure.measure == first.figure.measure]
        apart = _apart(first, alike)
        titles.append(first.figure.measure + (f" ({', '.join(apart)})" if apart else ""))
    return titles


def _apart(first: _Found, alike: Sequence[_Found]) -> list[str]:
    apart = []
    if len({other.record["fingerprint"] for other in alike}) > 1:
        same_name = {o.record["fingerprint"] for o in alike if o.record["data"] == first.record["data"]}
        short = f" {str(first.record['fingerprint'])[:_SHORT_HASH]}" if len(same_name) > 1 else ""
        apart.append(f"{first.record['data']}{short}")
    settings = [settings_of(other.record) for other in alike]
    for name, value in settings_of(first.record).items():
        if len({other.get(name) for other in settings}) > 1:
            count = value.count(",") + 1
            apart.append(f"{name} {value}" if count <= _SHOWN else f"{count} {name}")
    return apart


def _column(title: str, row: Sequence[_Found | None]) -> Column:
    first = next(each for each in row if each is not None)
    record = first.record
    values = [each.figure.value for each in row if each is not None]
    best = [place for place, each in enumerate(row) if each is not None and each.figure.value == max(values)]
    return Column(
        title=title,
        measure=first.figure.measure,
        percent=first.figure.percent,
        command=record["command"],
        data=record["data"],
        fingerprint=record["fingerprint"],
        settings=settings_of(record),
        cells=tuple(None if each is None else _cell(each) for each in row),
        best=tuple(best) if len(values) > 1 else (),
    )


def _cell(found: _Found) -> Cell:
    figure, counts = found.figure, _counts(found.figure)
    return Cell(
        value=figure.value,
        interval=figure.interval if counts is None else wilson(*counts),
        total=figure.total,
        random=figure.random,
        pixels=figure.pixels,
        same_place=figure.same_place,
        weights=str(found.record["result"]["weights"]),
        step=found.record.get("step"),
        time=str(found.record.get("time")),
    )


def _counts(figure: Figure) -> tuple[int, int] | None:
    return (round(figure.value * figure.total), figure.total) if figure.total else None


def _differences(title: str, row: Sequence[_Found | None], names: Sequence[str]) -> Iterator[Difference]:
    places = [place for place, each in enumerate(row) if each is not None]
    for place in places[1:]:
        first, other = row[places[0]], row[place]
        assert first is not None and other is not None  # by the choice of places
        difference, interval, method = _difference(other, first)
        yield Difference(
            title=title,
            run=names[place],
            reference=names[places[0]],
            percent=first.figure.percent,
            difference=difference,
            interval=interval,
            method=method,
        )


def _difference(a: _Found, b: _Found) -> tuple[float, tuple[float, float] | None, str]:
    right = [_correct(each) for each in (a, b)]
    if right[0] is not None and right[1] is not None and len(right[0]) == len(right[1]):
        difference, low, high = paired_difference(right[0], right[1])
        return difference, (low, high), "paired"
    counts = [_counts(each.figure) for each in (a, b)]
    if counts[0] is None or counts[1] is None:
        return a.figure.value - b.figure.value, None, "none"
    difference, low, high = unpaired_difference(*counts[0], *counts[1])
    return difference, (low, high), "unpaired"


def _correct(found: _Found) -> NDArray[np.bool_] | None:
    """Correctness of each image, where it is that of this figure."""
    right = correctness(found.record) if found.figure.scored else None
    return right if right is not None and _counts(found.figure) == (int(right.sum()), len(right)) else None


def _run_notes(name: str, path: Path, records: Sequence[Record], shown: Sequence[_Found]) -> Iterator[str]:
    if not records:
        yield f"{name} has no recorded evaluation; run for example: ibot knn-eval {path} DATA"
    unknown = sorted({str(record["command"]) for record in records} - set(COMMANDS))
    if unknown:
        yield f"{name}: evaluations of {', '.join(unknown)} are not compared by this version."
    steps = {each.record["step"] for each in shown if each.record.get("step") is not None}
    if len(steps) > 1:
        listed = ", ".join(
            sorted({f"{each.figure.measure} at {each.record['step']:,}" for each in shown if each.record.get("step")})
        )
        yield f"{name} was evaluated at different steps: {listed}."
    newest = max((int(match.group(1)) for match in map(_STEP.search, _files(path)) if match), default=0)
    if steps and newest > max(steps):
        yield f"{name} was evaluated at step {max(steps):,}, but has a checkpoint of step {newest:,}."


def _files(run: Path) -> list[str]:
    return [path.name for path in (run / "checkpoints").glob("step-*.pt")]


def _column_notes(columns: Sequence[Column]) -> Iterator[str]:
    measures = [column.measure for column in columns]
    for measure in dict.fromkeys(name for name in measures if measures.count(name) > 1):
        yield f"{measure} was measured on different data or with different settings; such figures do not compare."


def _recipe_notes(titles: Sequence[str], together: Sequence[Sequence[_Found | None]]) -> Iterator[str]:
    """What else differs between runs that stand in one column."""
    for title, row in zip(titles, together, strict=True):
        recipes = [recipe_of(each.record) for each in row if each is not None]
        names = dict.fromkeys(name for recipe in recipes for name in recipe)
        differ = [name for name in names if len({recipe.get(name) for recipe in recipes}) > 1]
        if differ:
            more = f" and {len(differ) - _SHOWN} more settings" if len(differ) > _SHOWN else ""
            yield f"{title}: the runs differ in {', '.join(differ[:_SHOWN])}{more}."
