"""Patterns as tables for people, on stderr."""

from __future__ import annotations

from ibot_cli import console
from ibot_cli.visualize.patterns.purity_table import purity_columns, purity_notes, purity_rows
from ibot_cli.visualize.patterns.result import Patterns
from ibot_cli.visualize.patterns.wording import ORDERS, class_name, items, measured, probable


def show_patterns(found: Patterns) -> None:
    """A row per pattern, with labels the purity beside what it must beat, and what the user should know."""
    console.note(f"Patterns of {found.data}: {found.weights}")
    things = items(found.kind)
    numbers = ["Rank", "Prototype", things.capitalize(), "Share", "Probability"]
    columns = [*numbers, "Purity, class", "Of members, class"] if found.classes is not None else numbers
    rows = []
    for rank, pattern in enumerate(found.patterns, start=1):
        row = [str(rank), f"{pattern.prototype:,}", f"{pattern.count:,}", f"{pattern.share:.1%}"]
        row.append(probable(pattern.probability))
        for share, label in ((pattern.purity, pattern.label), (pattern.members_purity, pattern.members_label)):
            row += [] if share is None else [f"{share:>6.1%}  {class_name(label, found) or ''}"]
        rows.append(row)
    console.table(columns, rows, right=numbers, keep=numbers)
    console.note(
        f"{found.used:,} of {found.num_prototypes:,} prototypes have {things} here; {len(found.patterns)} are shown, "
        f"{ORDERS[found.order].format(items=things)}. {measured(found)}."
    )
    if found.purity is not None:
        console.note("")
        heads = purity_columns(found.kind)
        console.table(heads, purity_rows(found.purity), title="Mean purity", right=heads[1:], keep=heads)
    for text in (*(purity_notes(found.purity, found.kind) if found.purity is not None else ()), *found.notes):
        console.note(text)
    for text in found.warnings:
        console.warn(text)
