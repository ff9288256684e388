"""Patterns as tables for people, on stderr."""

from __future__ import annotations

from ibot_cli import console
from ibot_cli.visualize.patterns.purity_table import purity_columns, purity_rows, purity_sentence
from ibot_cli.visualize.patterns.result import Patterns
from ibot_cli.visualize.patterns.wording import ORDERS, items, measured, probable


def show_patterns(found: Patterns) -> None:
    """A row per pattern, with labels the purity beside what it must beat, and what the user should know."""
    console.note(f"Patterns of {found.data}: {found.weights}")
    things = items(found.kind)
    numbers = ["Rank", "Prototype", things.capitalize(), "Share", "Probability"]
    labelled = found.classes is not None
    numbers += ["Purity", "Of members"] if labelled else []
    rows = []
    for rank, pattern in enumerate(found.patterns, start=1):
        row = [str(rank), f"{pattern.prototype:,}", f"{pattern.count:,}", f"{pattern.share:.1%}"]
        row.append(probable(pattern.probability))
        if found.classes is not None and pattern.label is not None:
            row += [f"{pattern.purity:.1%}", f"{pattern.members_purity:.1%}", found.classes[pattern.label]]
        rows.append(row)
    console.table([*numbers, "Class"] if labelled else numbers, rows, right=numbers, keep=numbers)
    console.note(
        f"{found.used:,} of {found.num_prototypes:,} prototypes have {things} here; {len(found.patterns)} are shown, "
        f"{ORDERS[found.order].format(items=things)}. {measured(found)}."
    )
    if found.purity is not None:
        console.note("")
        columns = purity_columns(found.kind)
        console.table(columns, purity_rows(found.purity), title="Mean purity", right=columns[1:], keep=columns)
        console.note(purity_sentence(found.purity, found.kind))
    for text in found.notes:
        console.warn(text)
