"""A retrieval and its duplicates as tables for people, on stderr."""

from __future__ import annotations

from collections.abc import Sequence

from ibot_cli import console
from ibot_cli.evaluate.retrieval.average_precision import KS
from ibot_cli.evaluate.retrieval.duplicate_result import DuplicatesResult, certain_first
from ibot_cli.evaluate.retrieval.neighbours import QueryNeighbours
from ibot_cli.evaluate.retrieval.protocol import RetrievalResult
from ibot_cli.quantities import counted

_QUERIES, _GROUPS, _IMAGES = 5, 10, 6  # what a table shows; files and JSON have everything


def show_retrieval(result: RetrievalResult, found: Sequence[QueryNeighbours]) -> None:
    """The scores beside their baselines, then the neighbours of the first queries, then what to know.

    Args:
        result: From `retrieve`.
        found: Neighbours to show.
    """
    console.note(f"Retrieval on {result.data}: {result.weights}")
    if result.mean_average_precision is not None:
        _show_scores(result)
    if found:
        _show_neighbours(found)
    counts = [counted(result.num_queries, "query", "queries"), f"gallery of {counted(result.num_gallery, 'image')}"]
    counts += [] if result.num_classes is None else [counted(result.num_classes, "class", "classes")]
    console.note(f"{result.protocol} {', '.join(counts)}; pooling {result.pooling}.")
    for text in result.notes:
        console.warn(text)


def show_duplicates(result: DuplicatesResult) -> None:
    """How many images occur more than once, and some groups, those with identical images first."""
    console.note(f"Duplicates in {result.data}: {result.weights}")
    rows = []
    for number, group in certain_first(result.groups)[:_GROUPS]:
        for place, image in enumerate(group[:_IMAGES]):
            kind = f"identical to {image.identical_to}" if image.identical_to is not None else ""
            label = f"{number}" if place == 0 else ""
            rows.append((label, image.path, image.label or "", f"{image.similarity:.4f}", kind))
        if len(group) > _IMAGES:
            rows.append(("", f"... and {len(group) - _IMAGES:,} more", "", "", ""))
    if rows:
        numbers = ["Group", "Cosine"]
        console.table(["Group", "Image", "Class", "Cosine", "Pixels"], rows, right=numbers, keep=numbers)
    more = len(result.groups) - _GROUPS
    if more > 0:
        console.note(f"... and {more:,} more groups: --json or --out has all of them.")
    console.note(_summary(result))
    for text in result.notes:
        console.warn(text)


def _show_scores(result: RetrievalResult) -> None:
    rows = [("this network", result.mean_average_precision, result.precision_at)]
    known = result.baselines
    if known is not None:
        seeds = len(known.random_map_per_seed)
        rows.append((f"random weights, mean of {seeds} seeds", known.random_map, known.random_precision_at))
        rows.append(("raw pixels, 32 x 32", known.pixels_map, known.pixels_precision_at))
    numbers = ["mAP", *(f"P@{k}" for k in KS)]
    cells = [(name, f"{mean:.2%}", *(f"{precision[k]:.2%}" for k in KS)) for name, mean, precision in rows]
    console.table(["Features", *numbers], cells, right=numbers, keep=numbers)


def _show_neighbours(found: Sequence[QueryNeighbours]) -> None:
    rows = []
    for query in found[:_QUERIES]:
        rows.append((query.query, "", query.label or "", ""))
        for rank, near in enumerate(query.neighbours, start=1):
            mark = _mark(query, near.label)
            rows.append((f"{rank:>4}  {near.path}", f"{near.similarity:.4f}", near.label or "", mark))
    console.table(["Query and neighbours", "Cosine", "Class", ""], rows, right=["Cosine"], keep=["Cosine"])
    if len(found) > _QUERIES:
        console.note(f"... and {len(found) - _QUERIES:,} more queries: --json, --out or --sheet has them.")


def _mark(query: QueryNeighbours, label: str | None) -> str:
    if query.label is None or label is None:
        return ""
    return "same class" if label == query.label else "another class"


def _summary(result: DuplicatesResult) -> str:
    if not result.groups:
        return f"None of {result.num_images:,} images has a duplicate: no cosine is above {result.threshold:g}."
    parts = [
        f"{result.num_grouped:,} of {result.num_images:,} images are in {counted(len(result.groups), 'group')} "
        f"with a cosine above {result.threshold:g}",
        f"{result.num_extra:,} of them beside the first of each group",
        f"{result.num_identical:,} with the very pixels of an earlier one",
    ]
    if result.num_across is not None:
        parts.append(f"groups across parts of the data: {result.num_across:,}")
    if result.num_mixed is not None:
        parts.append(f"groups of several classes: {result.num_mixed:,}")
    return "; ".join(parts) + "."
