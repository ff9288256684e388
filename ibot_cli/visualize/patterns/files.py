"""What `ibot visualize-patterns` leaves in its folder: sheets, an overview, a page and all numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ibot_cli import __version__
from ibot_cli.data.sources import Source
from ibot_cli.durable import finite, write_atomically
from ibot_cli.runs.evaluations import run_of
from ibot_cli.runs.filled_folder import filled_folder
from ibot_cli.visualize.figure_folder import MADE_BY, check_figure_folder
from ibot_cli.visualize.pages import write_page
from ibot_cli.visualize.patterns.page import patterns_page
from ibot_cli.visualize.patterns.result import Kind, Pattern, Patterns
from ibot_cli.visualize.patterns.sheets import overview_sheet, pattern_sheet
from ibot_cli.visualize.patterns.tiles import Pictures
from ibot_cli.visualize.patterns.wording import beside_title

COMMAND = "ibot visualize-patterns"
OVERVIEW, PAGE, NUMBERS = "overview.png", "index.html", "patterns.json"
NAMES = ("pattern_*_prototype_*.png", "random_*_prototype_*.png", OVERVIEW, PAGE, NUMBERS)
SIDE = 112
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class PatternFiles:
    """Where everything is.

    Attributes:
        folder: Holds all of it and nothing else.
        overview: A picture with a row per pattern.
        page: A page to look around in, without a network.
        numbers: All numbers as JSON; see `write_patterns`.
        sheets: A picture per pattern, in order.
        random_sheets: Likewise of random weights.
    """

    folder: Path
    overview: Path
    page: Path
    numbers: Path
    sheets: tuple[Path, ...]
    random_sheets: tuple[Path, ...]


def default_folder(weights: str, kind: Kind) -> Path:
    """Inside the run that WEIGHTS belong to, else in the current folder."""
    name = "patterns" if kind == "patch" else f"patterns-{kind}"
    run = run_of(weights)
    return Path(name) if run is None else run / "figures" / name


def check_pattern_folder(folder: Path) -> None:
    """Refuse, before anything is computed, a folder that could not hold the figures or holds something else.

    Raises:
        UsageError: See `check_figure_folder`.
    """
    check_figure_folder(folder, mark=NUMBERS, made_by=COMMAND, names=NAMES)


def write_patterns(
    folder: Path,
    source: Source,
    found: Patterns,
    *,
    beside: Patterns | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> PatternFiles:
    """Draw everything and write it at once: after an interruption the folder is as it was before.

    `patterns.json` is one object: `made_by`, `version`, `settings` (of the call), `files`, every field of `Patterns`
    by its name (`patterns` is a list; each has every field of `Pattern`, its `file`, and under `members` every field
    of `Member`; boxes are left, top, right, bottom in source pixels; labels are places in `classes`), and `random`:
    the same fields for random weights, or null. What is not finite is null.

    Args:
        folder: Made if it is not there; figures of an earlier call are replaced.
        source: Where the images are.
        found: The patterns.
        beside: Those of random weights on the same images, or None.
        settings: Of the call, for the record; plain values.
        progress: Called with the stage, what is done and its total.

    Raises:
        UsageError: As `check_pattern_folder`.
        DataError: The folder cannot be written.
    """
    check_pattern_folder(folder)
    pictures = Pictures(source)
    names = {"pattern": _names("pattern", found), "random": () if beside is None else _names("random", beside)}
    whose = {"pattern": None, "random": None if beside is None else beside_title(beside)}
    drawn = _Counter(len(names["pattern"]) + len(names["random"]) + 2, progress)
    with filled_folder(folder) as place:
        for prefix, some in (("pattern", found), ("random", beside)):
            for name, pattern in zip(names[prefix], () if some is None else some.patterns, strict=True):
                assert some is not None
                _save(place / name, pattern_sheet(pictures, pattern, some, side=SIDE, of=whose[prefix]))
                drawn.next()
        _save(place / OVERVIEW, overview_sheet(pictures, found, beside=beside))
        drawn.next()
        write_page(place / PAGE, patterns_page(pictures, found, beside=beside))
        text = json.dumps(pattern_numbers(found, beside, settings), indent=1, allow_nan=False)
        write_atomically(place / NUMBERS, lambda file: file.write(text.encode() + b"\n"))
        drawn.next()
    return PatternFiles(
        folder=folder,
        overview=folder / OVERVIEW,
        page=folder / PAGE,
        numbers=folder / NUMBERS,
        sheets=tuple(folder / name for name in names["pattern"]),
        random_sheets=tuple(folder / name for name in names["random"]),
    )


def pattern_numbers(
    found: Patterns, beside: Patterns | None = None, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of `patterns.json`; see `write_patterns`."""
    sheets = _names("pattern", found)
    random = () if beside is None else _names("random", beside)
    content = {
        MADE_BY: COMMAND,
        "version": __version__,
        "settings": dict(settings or {}),
        "files": [OVERVIEW, PAGE, *sheets, *random],
        **_fields(found, sheets),
        "random": None if beside is None else _fields(beside, random),
    }
    found_finite: dict[str, Any] = finite(content)
    return found_finite


class _Counter:
    """Says how far the drawing is."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._done = total, 0
        self._report = None if progress is None else partial(progress, "figures")

    def next(self) -> None:
        self._done += 1
        if self._report is not None:
            self._report(self._done, self._total)


def _names(prefix: str, found: Patterns) -> tuple[str, ...]:
    ranks = max(2, len(str(len(found.patterns))))
    digits = len(str(found.num_prototypes - 1))
    return tuple(
        f"{prefix}_{rank:0{ranks}d}_prototype_{pattern.prototype:0{digits}d}.png"
        for rank, pattern in enumerate(found.patterns, start=1)
    )


def _save(path: Path, image: Image.Image) -> None:
    write_atomically(path, lambda file: image.save(file, format="PNG"))


def _fields(found: Patterns, names: tuple[str, ...]) -> dict[str, Any]:
    def with_file(pattern: Pattern, name: str) -> dict[str, Any]:
        fields = asdict(pattern)
        members = fields.pop("members")
        return {**fields, "file": name, "members": members}

    content = asdict(found)
    content["patterns"] = [with_file(*pair) for pair in zip(found.patterns, names, strict=True)]
    return content
