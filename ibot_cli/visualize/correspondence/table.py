"""Matches as tables for people, on stderr."""

from __future__ import annotations

from collections.abc import Sequence

from ibot_cli import console
from ibot_cli.evaluate.faults import each_left_out
from ibot_cli.quantities import counted
from ibot_cli.visualize.correspondence.accuracy import MatchAccuracy
from ibot_cli.visualize.correspondence.result import Correspondence, ImageMatches

_NOTHING = "-"


def show_views(found: Correspondence) -> None:
    """The accuracy beside random weights and what needs no network."""
    console.note(f"Patches found again on {found.source}: {found.weights}")
    rows = [("this network", *_cells([found.trained]))]
    if found.random:
        rows.append((f"random weights (mean of {len(found.random)})", *_cells(found.random)))
    chance = found.chance
    for name, right, near in (
        ("the same place of the other view", chance.same_place, chance.same_place_within_1),
        ("chance", chance.accuracy, chance.accuracy_within_1),
    ):
        rows.append((name, f"{right:.1%}", _NOTHING, f"{near:.1%}", _NOTHING, _NOTHING))
    numbers = ["Right patch", "95 % interval", "Within 1", "Mutual", "Right if mutual"]
    console.table(["Matched by", *numbers], rows, right=numbers, keep=numbers)
    console.note(
        f"{counted(found.num_queries, 'patch', 'patches')} looked up in {found.views_in_words()}; "
        f"views of {found.size} pixels, {found.grid} x {found.grid} patches, "
        f"{found.scale[0]:.0%} to {found.scale[1]:.0%} of the largest crop, {found.changes}."
    )
    for text in each_left_out(found.unreadable):
        console.warn(text)


def show_images(found: ImageMatches) -> None:
    """How many patches match, in one line."""
    (rows, columns), (other_rows, other_columns) = found.grids
    grids = f"{rows} x {columns} and {other_rows} x {other_columns} patches"
    if not found.matches:
        console.note(f"Of {grids} none are each other's nearest.")
        return
    low, high = found.matches[-1].cosine, found.matches[0].cosine
    number = f"{counted(len(found.matches), 'pair')} {'is' if len(found.matches) == 1 else 'are'}"
    console.note(f"Of {grids}, {number} each other's nearest; cosine {low:.3f} to {high:.3f}. {found.weights}")


def _cells(entries: Sequence[MatchAccuracy]) -> tuple[str, str, str, str, str]:
    interval = entries[0].interval if len(entries) == 1 else None
    known = [entry.mutual_accuracy for entry in entries if entry.mutual_accuracy is not None]
    return (
        _mean([entry.accuracy for entry in entries]),
        _NOTHING if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}",
        _mean([entry.accuracy_within_1 for entry in entries]),
        _mean([entry.mutual for entry in entries]),
        _mean(known) if known else _NOTHING,
    )


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1%}"
