"""How `ibot retrieve` shows and writes what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ibot_cli import console
from ibot_cli.quantities import counted

if TYPE_CHECKING:
    from ibot_cli.data.sources import Source
    from ibot_cli.evaluate.retrieval.duplicate_result import DuplicatesResult
    from ibot_cli.evaluate.retrieval.gallery import Gallery
    from ibot_cli.evaluate.retrieval.neighbours import QueryNeighbours
    from ibot_cli.evaluate.retrieval.protocol import RetrievalResult


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is written besides the table.

    Attributes:
        out: A CSV file, or None.
        sheet: A picture, or None.
        rows: Most rows of the picture.
        json: Whether JSON goes to stdout.
    """

    out: Path | None
    sheet: Path | None
    rows: int
    json: bool

    @property
    def lists(self) -> bool:
        """Whether the neighbours themselves are asked for, not only their score."""
        return self.json or self.out is not None or self.sheet is not None


def show_neighbours(
    result: RetrievalResult, found: Sequence[QueryNeighbours], gallery: Gallery, output: Output
) -> None:
    """The table, then the files that were asked for."""
    from ibot_cli.evaluate.output_file import write_output
    from ibot_cli.evaluate.retrieval.neighbours import neighbours_csv
    from ibot_cli.evaluate.retrieval.table import show_retrieval
    from ibot_cli.visualize.retrieval_sheets import write_neighbour_sheet

    show_retrieval(result, () if gallery.measured else found)
    if output.json:
        console.emit_json({**asdict(result), "queries": found})
    queries = counted(len(found), "query", "queries")
    if output.out is not None:
        write_output(output.out, neighbours_csv(found).encode(errors="surrogateescape"))
        console.note(f"Written to {output.out}: the neighbours of {queries}.")
    if output.sheet is not None:
        shown = write_neighbour_sheet(output.sheet, gallery, found, rows=output.rows)
        console.note(f"Drawn in {output.sheet}: {shown:,} of {queries}.")


def show_duplicates(result: DuplicatesResult, source: Source, output: Output) -> None:
    """The table, then the files that were asked for."""
    from ibot_cli.evaluate.output_file import write_output
    from ibot_cli.evaluate.retrieval import table
    from ibot_cli.evaluate.retrieval.duplicate_result import duplicates_csv
    from ibot_cli.visualize.retrieval_sheets import write_duplicate_sheet

    table.show_duplicates(result)
    if output.json:
        console.emit_json(result)
    groups = counted(len(result.groups), "group")
    if output.out is not None:
        write_output(output.out, duplicates_csv(result.groups).encode(errors="surrogateescape"))
        console.note(f"Written to {output.out}: {groups}.")
    if output.sheet is not None and result.groups:
        shown = write_duplicate_sheet(output.sheet, source, result.groups, rows=output.rows)
        console.note(f"Drawn in {output.sheet}: {shown:,} of {groups}.")
    elif output.sheet is not None:
        console.note(f"There is no duplicate to draw in {output.sheet}.")
