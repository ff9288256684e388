"""`metrics.jsonl` as columns: a long run's records are read once, and no more than their numbers is kept."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibot_cli.errors import RunError

Numbers = NDArray[np.float64]
_PLACES = frozenset({"step", "epoch", "skipped", "overflow"})


@dataclass(frozen=True)
class Series:
    """Numbers of one name: float64 `[n]` each, by ascending step; what was not finite is left out."""

    steps: Numbers
    values: Numbers

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float | None:
        """The newest value."""
        return float(self.values[-1]) if len(self.values) else None


@dataclass(frozen=True, kw_only=True)
class RunMetrics:
    """What a run recorded while it trained.

    Attributes:
        series: Numbers of steps by name.
        epochs: The numbers of each complete epoch.
        skipped: Steps whose update was skipped.
        last_step: The newest step; 0 before the first.
        damaged: Numbers of lines that are no record, counted from 1; a half-written last line is none of them.
    """

    series: Mapping[str, Series] = field(default_factory=dict)
    epochs: tuple[Mapping[str, Any], ...] = ()
    skipped: tuple[int, ...] = ()
    last_step: int = 0
    damaged: tuple[int, ...] = ()

    def of_steps(self, name: str) -> Series:
        """Numbers of steps; empty where there are none."""
        return self.series.get(name, Series(np.empty(0), np.empty(0)))

    def of_epochs(self, name: str) -> Series:
        """Numbers of epochs, by number of complete epochs."""
        pairs = [(e["epochs_done"], e[name]) for e in self.epochs if _is_number(e.get(name))]
        places, values = zip(*pairs, strict=True) if pairs else ((), ())
        return Series(np.array(places, dtype=np.float64), np.array(values, dtype=np.float64))


class _Columns:
    """Filled line by line."""

    def __init__(self) -> None:
        self.columns: dict[str, tuple[array[float], array[float]]] = {}
        self.epochs: list[Mapping[str, Any]] = []
        self.skipped: list[int] = []
        self.damaged: list[int] = []
        self.last_step = 0

    def add(self, record: Mapping[str, Any]) -> None:
        step = record["step"]
        self.last_step = max(self.last_step, step)
        if "epochs_done" in record:
            self.epochs.append({name: value for name, value in record.items() if _is_number(value)})
            return
        if record.get("skipped") and not record.get("overflow"):
            self.skipped.append(step)
        for name, value in record.items():
            if name not in _PLACES and _is_number(value):
                if name not in self.columns:
                    self.columns[name] = (array("d"), array("d"))
                steps, values = self.columns[name]
                steps.append(step)
                values.append(value)


def read_metrics(path: Path) -> RunMetrics:
    """Everything that can be read; damaged lines are counted, never an error.

    Raises:
        RunError: The file is there but cannot be opened.
    """
    found = _Columns()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                record = _parsed(line)
                if record is not None:
                    found.add(record)
                elif line.endswith(b"\n") and line.strip():
                    found.damaged.append(number)
    except FileNotFoundError:
        return RunMetrics()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions.") from error
    return RunMetrics(
        series={name: Series(np.array(steps), np.array(values)) for name, (steps, values) in found.columns.items()},
        epochs=tuple(found.epochs),
        skipped=tuple(found.skipped),
        last_step=found.last_step,
        damaged=tuple(found.damaged),
    )


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    complete = line.endswith(b"\n") and isinstance(record, dict) and isinstance(record.get("step"), int)
    whole = complete and isinstance(record.get("epochs_done", 0), int)
    return record if whole else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
