"""What `ibot compare` found, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BASELINES = {"random": "random weights", "pixels": "raw pixels", "same_place": "the same place"}
"""What a figure is judged against: fields of a cell and their names."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one run reached.

    Attributes:
        value: The figure.
        interval: Its 95 % interval, for the choice of the test images: Wilson's for a share of them, over images for a
            share of their patches; None for other figures.
        total: Test images, where it is a share of them.
        random: The same of random weights, mean over seeds; None when not measured.
        pixels: The same of raw pixels; None when not measured.
        same_place: The same of the guess that a patch stays where it was; None where that is no answer.
        weights: What was evaluated.
        step: After how many steps; None when not known.
        time: When it was evaluated.
    """

    value: float
    interval: tuple[float, float] | None
    total: int | None
    random: float | None
    pixels: float | None
    weights: str
    step: int | None
    time: str
    same_place: float | None = None

    @property
    def baselines(self) -> dict[str, float]:
        """Those that were measured, by name."""
        return {name: value for field, name in BASELINES.items() if (value := getattr(self, field)) is not None}

    def side(self, baseline: float) -> int:
        """1 above the baseline, -1 below it, 0 where the interval holds it; without one, by the bare figures."""
        low, high = self.interval or (self.value, self.value)
        return (low > baseline) - (high < baseline)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One measure on one data set with the same settings.

    Attributes:
        title: What was measured, with the settings or data that tell it from other columns.
        measure: What was measured.
        percent: Whether people read it as a percentage.
        command: The command that measured it.
        data: DATA as given.
        fingerprint: Of the data.
        settings: Everything that the figure depends on.
        cells: One per run; None where that run was not measured so.
        best: Places of the best runs; empty with fewer than two.
    """

    title: str
    measure: str
    percent: bool
    command: str
    data: str
    fingerprint: str
    settings: Mapping[str, str]
    cells: tuple[Cell | None, ...]
    best: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A run less the first run that was measured so.

    Attributes:
        title: Of the column.
        run: The run.
        reference: The run that it is compared with.
        percent: As in the column.
        difference: Of the figures.
        interval: 95 % interval; None where the figure is no share of test images.
        method: `paired` (the same images, score interval of Tango), `unpaired` (counts only, Newcombe), or `none`.
    """

    title: str
    run: str
    reference: str
    percent: bool
    difference: float
    interval: tuple[float, float] | None
    method: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that `ibot compare` tells.

    Attributes:
        runs: Their names, in the order given.
        columns: One per measure, data set and settings.
        differences: To the first run of each column.
        notes: What the reader should know.
    """

    runs: tuple[str, ...]
    columns: tuple[Column, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
